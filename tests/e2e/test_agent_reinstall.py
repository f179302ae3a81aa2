"""``reinstall``: the latest version of a component anew, in a sequence like any other (FR-RIN-001, FR-RIN-002)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import Package
from support.endpoints import KILLER, Endpoint, endpoint_in, tree_hash

UNHEALTHY = 'kind = "command"\ncommand = ["bin/check"]\ntimeout_seconds = 0.1'


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "downloads") as repository:
        for name in ("service", "probe"):
            publish(repository, Package(name, "1.0.0"))
        yield repository


@pytest.fixture
def endpoint(tmp_path: Path, repository: Repository) -> Iterator[Endpoint]:
    with endpoint_in(tmp_path / "endpoint") as endpoint:
        endpoint.install(repository, "service", "probe")
        data = endpoint.paths.install("service") / "data"
        data.mkdir()
        (data / "kept").write_text("kept")
        yield endpoint


def publish(repository: Repository, package: Package, requires: dict[str, str] | None = None) -> None:
    needed = "".join(f'{{ name = "{name}", min_version = "{version}" }},' for name, version in (requires or {}).items())
    package.top = f'preserve = ["data/**"]\nrequires = [{needed}]'
    repository.publish(package.name, package.build(), requires=requires)


def damage(endpoint: Endpoint) -> Path:
    """Change an installed file."""
    file = endpoint.paths.install("service") / "VERSION"
    file.write_text("changed by hand")
    return file


def test_the_installed_version_is_installed_anew_and_what_is_preserved_stays(
    repository: Repository, endpoint: Endpoint
) -> None:
    """FR-RIN-001."""
    file, programs = damage(endpoint), endpoint.processes()
    assert "Installed: service 1.0.0" in endpoint.run("reinstall", "service").stdout
    assert file.read_text() == "1.0.0"
    assert (endpoint.paths.install("service") / "data" / "kept").read_text() == "kept"
    endpoint.run("verify")
    assert endpoint.runs_live("service")
    assert endpoint.processes()["service"] != programs["service"]
    assert endpoint.processes()["probe"] == programs["probe"]
    assert endpoint.leftovers() == []
    record = repository.final("service")[-1]
    assert (record.status, record.trigger_source, record.current_version) == ("success", "manual", "1.0.0")
    assert {one.name: one.version for one in repository.checks[-1].components} == {"service": "", "probe": "1.0.0"}


def test_clean_starts_without_the_preserved_files_and_says_which(endpoint: Endpoint) -> None:
    """FR-RIN-002."""
    said = endpoint.run("reinstall", "service", "--clean").stdout
    assert "Not carried over, as --clean says: data/kept" in said
    assert not (endpoint.paths.install("service") / "data").exists()
    assert endpoint.runs_live("service")


def test_a_newer_version_comes_alone_or_with_what_it_needs(repository: Repository, endpoint: Endpoint) -> None:
    publish(repository, Package("service", "1.1.0"))
    publish(repository, Package("probe", "1.1.0"))
    endpoint.run("reinstall", "service")
    assert endpoint.installed() == {"service": "1.1.0", "probe": "1.0.0"}
    publish(repository, Package("service", "1.2.0"), requires={"probe": "1.1.0"})
    endpoint.run("reinstall", "service")
    assert endpoint.installed() == {"service": "1.2.0", "probe": "1.1.0"}


@pytest.mark.parametrize("clean", [[], ["--clean"]])
def test_a_reinstallation_that_fails_brings_back_the_old_folder_whole(
    repository: Repository, endpoint: Endpoint, clean: list[str]
) -> None:
    """FR-RBK-001: with --clean the preserved files are in the backup."""
    before = tree_hash(endpoint.paths.install("service"))
    publish(repository, Package("service", "1.1.0", check="#!/bin/sh\nexit 1\n", health=UNHEALTHY))
    said = endpoint.run("reinstall", "service", *clean, expect=1)
    assert "Not carried over" not in said.stdout
    assert tree_hash(endpoint.paths.install("service")) == before
    assert endpoint.installed()["service"] == "1.0.0"
    assert endpoint.runs_live("service")
    assert endpoint.leftovers() == []
    endpoint.run("verify")


def test_a_release_that_is_skipped_after_failures_is_tried_again(repository: Repository, endpoint: Endpoint) -> None:
    publish(repository, Package("service", "1.1.0", check="#!/bin/sh\nexit 1\n", health=UNHEALTHY))
    for _ in range(3):
        endpoint.once(expect=1)
    assert "QUARANTINED" in endpoint.once(expect=1).stderr
    assert "HEALTH_FAILED" in endpoint.run("reinstall", "service", expect=1).stderr


def test_a_lower_version_is_refused(repository: Repository, endpoint: Endpoint) -> None:
    """Design §4: never below the installed version."""
    publish(repository, Package("service", "1.1.0"))
    endpoint.once()
    del repository.releases[Package("service", "1.1.0").name]
    assert "DOWNGRADE_REFUSED" in endpoint.run("reinstall", "service", expect=3).stderr
    assert endpoint.versions()["service"] == "1.1.0"


def test_what_the_server_does_not_offer_stays_and_the_reason_is_said(
    repository: Repository, endpoint: Endpoint
) -> None:
    """Promise 3."""
    repository.releases.clear()
    assert "no_release_for_platform" in endpoint.run("reinstall", "service", expect=1).stderr
    assert "no component of this endpoint" in endpoint.run("reinstall", "nothing", expect=1).stderr
    assert endpoint.runs_live("service")


def test_a_reinstallation_killed_at_any_change_leaves_the_old_folder_or_the_new_one(
    repository: Repository, endpoint: Endpoint, tmp_path: Path
) -> None:
    """NFR-REL-003, also with a journal that is damaged then: same version and digest do not make it committed."""
    counts = tmp_path / "counts"

    def run_killed(at: int) -> bool:
        command = (sys.executable, str(KILLER), str(at), str(counts))
        result = endpoint.run("reinstall", "service", "--clean", command=command, expect=None)
        return result.returncode == -signal.SIGKILL

    run_killed(0)
    total = int(counts.read_text())
    assert total > 30
    for number, at in enumerate(range(3, total, max(1, total // 10))):
        file = damage(endpoint)
        (endpoint.paths.install("service") / "data").mkdir(exist_ok=True)
        (endpoint.paths.install("service") / "data" / "kept").write_text("kept")
        before = tree_hash(endpoint.paths.install("service"))
        run_killed(at)
        if number % 2 and endpoint.paths.journal.exists():
            endpoint.paths.journal.write_bytes(b"\0" * 64)
        endpoint.run("recover")
        assert endpoint.runs_live("service")
        assert [left for left in endpoint.leftovers() if "/downloads/" not in left] == []
        if file.read_text() == "1.0.0":
            endpoint.run("verify")
            assert not (endpoint.paths.install("service") / "data").exists()
        else:
            assert tree_hash(endpoint.paths.install("service")) == before
