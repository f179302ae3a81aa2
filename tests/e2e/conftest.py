"""An endpoint and a server of its own; machines with a real booted systemd, for the tests that ask for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.endpoints import Endpoint, endpoint_in
from support.machine import Machine, base_system, cache_folder, machine_on, why_not


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """Give a server with an empty tree."""
    with Repository(tmp_path / "downloads") as repository:
        yield repository


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    """Give an endpoint on which nothing is installed."""
    with endpoint_in(tmp_path / "endpoint") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest) -> Path:
    """Make the files of a minimal Debian, once."""
    return base_system(cache_folder(request.config))


@pytest.fixture
def machine(base: Path, tmp_path: Path) -> Iterator[Machine]:
    """Give a machine of one's own, switched off."""
    with machine_on(base, tmp_path / "machine") as machine:
        yield machine


@pytest.fixture
def machine_repository(tmp_path: Path, machine: Machine) -> Iterator[Repository]:
    """Give a server that the machine can reach, with its root of trust on the machine's disk."""
    with Repository(tmp_path / "downloads") as repository:
        (machine.root / "root/root.json").write_bytes(repository.root_json.read_bytes())
        yield repository


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a machine where none can be booted, and give booting its time."""
    reason = why_not()
    for item in items:
        if "machine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(600))
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
