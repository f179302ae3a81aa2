"""What is on the disk already is adopted without a download (FR-BST-002)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import Package
from support.endpoints import KILLER, Endpoint, endpoint_in

COMPONENTS = ("service", "probe")
DOWNLOADS = "/v1/packages"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "downloads") as repository:
        for name in COMPONENTS:
            package = Package(name, "1.0.0", top='preserve = ["data/**"]')
            repository.publish(package.name, package.build())
        yield repository


@pytest.fixture
def endpoint(tmp_path: Path, repository: Repository) -> Iterator[Endpoint]:
    """Give an endpoint that has lost its manifest."""
    with endpoint_in(tmp_path / "endpoint") as endpoint:
        endpoint.install(repository, *COMPONENTS)
        lose_manifest(endpoint)
        yield endpoint


def lose_manifest(endpoint: Endpoint) -> None:
    for path in endpoint.paths.state.glob("manifest.json*"):
        path.unlink()


def test_installing_over_components_that_are_there_adopts_them(repository: Repository, endpoint: Endpoint) -> None:
    programs, calls = endpoint.processes(), repository.calls[DOWNLOADS]
    endpoint.install(repository, *COMPONENTS)
    assert repository.calls[DOWNLOADS] == calls
    assert endpoint.processes() == programs
    assert endpoint.installed() == dict.fromkeys(COMPONENTS, "1.0.0")
    assert [record.status for record in repository.final("service")] == ["success", "success"]
    endpoint.run("verify")
    assert endpoint.leftovers() == []


def test_an_adopted_program_that_did_not_run_is_started(repository: Repository, endpoint: Endpoint) -> None:
    endpoint.kill_all()
    endpoint.once()
    assert all(endpoint.runs_live(name) for name in COMPONENTS)


def test_files_that_are_not_those_of_the_package_are_not_adopted(repository: Repository, endpoint: Endpoint) -> None:
    calls = repository.calls[DOWNLOADS]
    (endpoint.paths.install("service") / "VERSION").write_text("changed")
    endpoint.once()
    assert repository.calls[DOWNLOADS] == calls + 1
    assert endpoint.versions() == endpoint.installed() == dict.fromkeys(COMPONENTS, "1.0.0")


def test_what_no_release_key_signed_is_not_adopted(repository: Repository, endpoint: Endpoint) -> None:
    """Promise 2."""
    repository.spoil = {"signature": "AAAA", "signatures": ()}
    assert "SIGNATURE_INVALID" in endpoint.run("once", expect=1).stderr
    assert endpoint.installed() == {}


def test_an_adoption_killed_at_any_change_is_finished_or_leaves_the_folder(
    repository: Repository, endpoint: Endpoint, tmp_path: Path
) -> None:
    """Promise 1."""
    counts = tmp_path / "counts"
    endpoint.run("once", command=(sys.executable, str(KILLER), "0", str(counts)))
    total = int(counts.read_text())
    assert total > 30
    for at in range(2, total, total // 8):
        lose_manifest(endpoint)
        command = (sys.executable, str(KILLER), str(at), str(counts))
        assert endpoint.run("once", command=command, expect=None).returncode == -signal.SIGKILL
        endpoint.run("recover")
        assert endpoint.versions() == dict.fromkeys(COMPONENTS, "1.0.0")
        endpoint.once()
        assert endpoint.installed() == endpoint.versions()
        assert all(endpoint.runs_live(name) for name in COMPONENTS)
        assert endpoint.leftovers() == []
