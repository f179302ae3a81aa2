"""``uninstall``: components go whole or not at all, and nothing else goes with them (design §8, promise 1)."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import Package
from support.endpoints import KILLER, Endpoint, endpoint_in

from agent.durable import save

COMPONENTS = ("service", "probe")
NOBODY = 65534


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "downloads") as repository:
        for name in COMPONENTS:
            package = Package(name, "1.0.0")
            repository.publish(package.name, package.build())
        yield repository


@pytest.fixture
def endpoint(tmp_path: Path, repository: Repository) -> Iterator[Endpoint]:
    with endpoint_in(tmp_path / "endpoint") as endpoint:
        endpoint.install(repository, *COMPONENTS)
        yield endpoint


def files(endpoint: Endpoint) -> list[str]:
    """Return every file below the endpoint, and every folder that is empty."""
    found = [path for path in endpoint.root.rglob("*") if not path.is_dir() or not any(path.iterdir())]
    return sorted(str(path.relative_to(endpoint.root)) for path in found)


def is_gone(endpoint: Endpoint, *names: str) -> bool:
    """Whether nothing of components is left: no folder, program, list, log or entry."""
    left = [path for path in files(endpoint) if any(name in Path(path).name or f"/{name}/" in path for name in names)]
    assert left == []
    return not (set(names) & (endpoint.installed().keys() | endpoint.processes().keys()))


def give_to(user: int, folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def test_a_component_goes_and_does_not_come_back(repository: Repository, endpoint: Endpoint) -> None:
    programs = endpoint.processes()
    assert "Removed: probe" in endpoint.run("uninstall", "probe").stdout
    assert is_gone(endpoint, "probe")
    assert endpoint.processes() == {"service": programs["service"]}
    assert json.loads(endpoint.paths.config.read_text())["components"] == ["service"]
    assert endpoint.status()["installed_components"] == [{"name": "service", "version": "1.0.0"}]
    endpoint.once()
    assert endpoint.installed() == {"service": "1.0.0"}
    endpoint.run("install", "--components", "service,probe")
    assert endpoint.runs_live("probe")


def test_without_names_all_components_go_and_the_configuration_stays(
    repository: Repository, endpoint: Endpoint
) -> None:
    device = json.loads(endpoint.paths.config.read_text())["device_id"]
    endpoint.run("uninstall")
    assert is_gone(endpoint, *COMPONENTS)
    endpoint.once()
    assert endpoint.installed() == {}
    endpoint.run("install")
    assert endpoint.installed() == dict.fromkeys(COMPONENTS, "1.0.0")
    assert json.loads(endpoint.paths.config.read_text())["device_id"] == device


def test_a_purge_leaves_nothing_of_the_agent_and_everything_of_others(endpoint: Endpoint) -> None:
    other = endpoint.paths.config_folder / "repo-server.toml"
    other.write_text("")
    (endpoint.paths.install_root / "mine").mkdir()
    assert "opt/commandit/mine" in endpoint.run("uninstall", "--purge").stdout
    assert files(endpoint) == ["etc/commandit/repo-server.toml", "opt/commandit/mine", "var/lib"]
    assert endpoint.processes() == {}


def test_a_link_in_place_of_an_install_folder_goes_and_what_it_leads_to_stays(endpoint: Endpoint) -> None:
    live, elsewhere = endpoint.paths.install("service"), endpoint.root / "elsewhere"
    live.rename(elsewhere)
    live.symlink_to(elsewhere)
    (elsewhere / "link").symlink_to(endpoint.paths.config_folder)
    endpoint.run("uninstall", "service")
    assert not live.is_symlink()
    assert (elsewhere / "VERSION").exists()
    assert endpoint.paths.config.exists()


def test_what_is_not_installed_is_refused_and_nothing_goes(endpoint: Endpoint) -> None:
    assert "there is: probe, service" in endpoint.run("uninstall", "service", "ui", expect=1).stderr
    endpoint.run("uninstall", "service", "--purge", expect=2)
    assert all(endpoint.runs_live(name) for name in COMPONENTS)


def test_nothing_is_removed_while_an_update_runs(endpoint: Endpoint) -> None:
    with endpoint.paths.lock.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        endpoint.run("uninstall", expect=4)
    assert all(endpoint.runs_live(name) for name in COMPONENTS)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
def test_a_removal_is_given_up_when_a_program_cannot_be_stopped(repository: Repository) -> None:
    """Nothing has gone, and no later recovery goes on with it: the operator decides again."""
    # As somebody who may not signal the programs, and who can look into the folder.
    with tempfile.TemporaryDirectory() as folder, endpoint_in(Path(folder) / "endpoint") as endpoint:
        endpoint.install(repository, *COMPONENTS)
        programs = endpoint.processes()
        give_to(NOBODY, Path(folder))
        as_nobody = (
            "import ctypes, os, sys; from agent.cli import commands;"
            f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); commands(sys.argv[1:])"
        )
        result = endpoint.run("uninstall", command=(sys.executable, "-c", as_nobody), expect=1)
        assert "STOP_FAILED" in result.stderr
        assert "nothing was removed" in result.stderr
        assert not (endpoint.paths.state / "removal.json").exists()
        give_to(0, Path(folder))
        endpoint.run("recover")
        assert endpoint.installed() == dict.fromkeys(COMPONENTS, "1.0.0")
        assert endpoint.processes() == programs
        endpoint.run("uninstall")
        assert is_gone(endpoint, *COMPONENTS)


@pytest.mark.parametrize("components", ["NUL", 7, ["../../etc"]])
def test_a_damaged_note_of_a_removal_removes_nothing(endpoint: Endpoint, components: object) -> None:
    note = endpoint.paths.state / "removal.json"
    if components == "NUL":
        note.write_bytes(b"\0" * 64)
    else:
        save(note, {"components": components, "stopped": True})
    endpoint.run("recover")
    assert "STATE_DAMAGED" in endpoint.log()
    assert not note.exists()
    assert all(endpoint.runs_live(name) for name in COMPONENTS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("purge", [[], ["--purge"]])
def test_a_removal_killed_at_any_change_is_finished_by_recovery(
    repository: Repository, tmp_path: Path, purge: list[str]
) -> None:
    """Promise 1: before it is written down nothing has gone; after that all of it goes."""
    counts = tmp_path / "counts"
    total, at = 2, 1
    while at < total:
        with endpoint_in(tmp_path / f"endpoint-{at}") as endpoint:
            endpoint.install(repository, *COMPONENTS)
            if at == 1:
                endpoint.run("uninstall", *purge, command=(sys.executable, str(KILLER), "0", str(counts)))
                total = int(counts.read_text())
                assert total > 30
                endpoint.run("install", "--server", repository.url, "--root", repository.root_json,
                             "--components", ",".join(COMPONENTS), "--service-manager", "process")  # fmt: skip
            command = (sys.executable, str(KILLER), str(at), str(counts))
            result = endpoint.run("uninstall", *purge, command=command, expect=None)
            assert result.returncode == -signal.SIGKILL
            endpoint.run("recover", command=(sys.executable, str(KILLER), str(1 + at % 20), str(counts)), expect=None)
            endpoint.run("recover")
            if endpoint.installed():
                assert all(endpoint.runs_live(name) for name in COMPONENTS)
                assert at < total // 2
            else:
                assert is_gone(endpoint, *COMPONENTS)
                assert not purge or not endpoint.paths.config.exists()
            at += max(1, total // 8)


def test_installing_after_an_interrupted_purge_installs(
    repository: Repository, endpoint: Endpoint, tmp_path: Path
) -> None:
    """The purge is finished first: it must not take the new configuration with it."""
    command = (sys.executable, str(KILLER), "0", str(tmp_path / "counts"))
    endpoint.run("uninstall", "--purge", command=command)
    total = int((tmp_path / "counts").read_text())
    endpoint.install(repository, *COMPONENTS)
    endpoint.run("uninstall", "--purge", command=(*command[:2], str(total // 2), command[3]), expect=-9)
    assert (endpoint.paths.state / "removal.json").exists()
    endpoint.install(repository, *COMPONENTS)
    assert all(endpoint.runs_live(name) for name in COMPONENTS)
    endpoint.once()
    assert endpoint.installed() == dict.fromkeys(COMPONENTS, "1.0.0")
