"""What the tests of whole updates share: what is published, and where an update is."""

from __future__ import annotations

from simulators.repository import Repository

from support.components import Package
from support.endpoints import Endpoint

COMPONENTS = ("service", "probe", "ui")


def publish(repository: Repository, *packages: Package) -> None:
    for package in packages:
        repository.publish(package.name, package.build())


def at_step(endpoint: Endpoint, step: str) -> bool:
    """Whether the journal is at a step just now."""
    return endpoint.paths.journal.exists() and f'"step": "{step}"' in endpoint.paths.journal.read_text()
