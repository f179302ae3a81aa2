"""The agent's whole cycle, with real packages, processes and signatures, against the real decision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import DEAF, Package, web
from support.endpoints import AGENT, Endpoint, wait_until
from support.programs import free_port
from support.updating import COMPONENTS, publish

from agent.lock import only_one
from repo_server.core.wire import UpdateStatus


def test_three_components_are_installed_and_updated_together(repository: Repository, endpoint: Endpoint) -> None:
    """FR-BST-002, FR-UPD-007: the server's order, exactly the payload, the new programs running."""
    publish(repository, *(Package(name, "1.0.0") for name in COMPONENTS))
    endpoint.install(repository, *COMPONENTS)
    assert endpoint.installed() == dict.fromkeys(COMPONENTS, "1.0.0")
    assert all(endpoint.runs_live(name) for name in COMPONENTS)
    publish(repository, *(Package(name, "1.1.0") for name in COMPONENTS))
    endpoint.once()
    assert endpoint.installed() == endpoint.versions() == dict.fromkeys(COMPONENTS, "1.1.0")
    assert all(endpoint.runs_live(name) for name in COMPONENTS)
    assert endpoint.leftovers() == []
    payload = Package("service", "1.1.0").payload()
    live = endpoint.paths.install("service")
    assert {str(path.relative_to(live)): path.read_bytes() for path in live.rglob("*") if path.is_file()} == payload
    assert {record.status for record in repository.records.values()} == {UpdateStatus.SUCCESS}
    assert len(repository.records) == 6


def test_a_program_that_ignores_sigterm_is_killed(repository: Repository, endpoint: Endpoint) -> None:
    """FR-CMP-001."""
    deaf = Package(
        "service", "1.0.0", program=DEAF, service='kind = "process"\ncommand = ["bin/serve"]\nstop_timeout_seconds = 1'
    )
    publish(repository, deaf)
    endpoint.install(repository, "service")
    before = endpoint.processes()["service"]
    publish(repository, Package("service", "1.1.0"))
    endpoint.once()
    assert endpoint.installed() == {"service": "1.1.0"}
    assert endpoint.runs_live("service")
    assert endpoint.processes()["service"] != before


def test_files_that_a_package_preserves_survive_with_mode_and_owner(repository: Repository, endpoint: Endpoint) -> None:
    """L42, FR-CMP-003: the globs of the new package decide; everything else is exactly the payload."""
    keeping = 'preserve = ["etc/*.conf", "data/**"]'
    publish(repository, Package("service", "1.0.0", top=keeping, files={"etc/a.conf": "default", "old.txt": "x"}))
    endpoint.install(repository, "service")
    live = endpoint.paths.install("service")
    (live / "etc" / "a.conf").write_text("mine")
    (live / "etc" / "a.conf").chmod(0o640)
    (live / "etc" / "sub").mkdir()
    (live / "etc" / "sub" / "b.conf").write_text("not covered by one star")
    (live / "data" / "deep" / "er").mkdir(parents=True)
    (live / "data" / "deep" / "er" / "x.db").write_bytes(b"rows")
    (live / "data" / "link").symlink_to("deep/er/x.db")
    (live / "data" / "empty").mkdir(mode=0o750)
    new = Package("service", "1.1.0", top=keeping, files={"etc/a.conf": "newer default", "etc/c.conf": "added"})
    publish(repository, new)
    endpoint.once()
    assert (live / "etc" / "a.conf").read_text() == "mine"
    assert (live / "etc" / "a.conf").stat().st_mode & 0o777 == 0o640
    assert (live / "data" / "deep" / "er" / "x.db").read_bytes() == b"rows"
    assert (live / "data" / "link").readlink() == Path("deep/er/x.db")
    found = {str(path.relative_to(live)) for path in live.rglob("*") if not path.is_dir() or not any(path.iterdir())}
    kept = {"etc/a.conf", "data/deep/er/x.db", "data/link", "data/empty"}
    assert found == set(new.payload()) | kept


def test_what_a_program_writes_until_it_is_stopped_is_preserved(repository: Repository, endpoint: Endpoint) -> None:
    """L42: the new folder is prepared while the old program still writes into the old one."""
    writing = """#!/bin/sh
n=0
trap 'echo $n > data/last; rm -f data/passing; exit 0' TERM
mkdir -p data
touch data/passing
while :; do n=$((n+1)); echo $n >> data/log; sleep 0.02; done
"""
    publish(repository, Package("service", "1.0.0", program=writing, top='preserve = ["data/**"]'))
    endpoint.install(repository, "service")
    live = endpoint.paths.install("service")
    wait_until((live / "data" / "log").exists, "the program writes")
    publish(repository, Package("service", "1.1.0", top='preserve = ["data/**"]'))
    endpoint.once()
    lines = (live / "data" / "log").read_text().split()
    assert lines[-1] == (live / "data" / "last").read_text().strip()
    assert not (live / "data" / "passing").exists()


def test_hooks_run_from_the_staged_folder_before_and_after_the_exchange(
    repository: Repository, endpoint: Endpoint, tmp_path: Path
) -> None:
    """L44."""
    hook = f'#!/bin/sh\necho "$COMMANDIT_HOOK $(cat "$COMMANDIT_INSTALL_FOLDER/VERSION")" $(ls) >> {tmp_path}/said\n'
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    publish(repository, Package(
        "service", "1.1.0", hook_files={"hooks/it": hook},
        hooks='pre_install = ["hooks/it"]\npost_install = ["hooks/it"]',
    ))  # fmt: skip
    endpoint.once()
    said = (tmp_path / "said").read_text().splitlines()
    assert said == ["pre_install 1.0.0 hooks package.toml", "post_install 1.1.0 hooks package.toml"]


def test_a_recalled_release_goes_back_to_the_one_before(repository: Repository, endpoint: Endpoint) -> None:
    """L51."""
    publish(repository, Package("service", "1.0.0"), Package("service", "1.1.0"))
    endpoint.install(repository, "service")
    assert endpoint.installed() == {"service": "1.1.0"}
    repository.block(Package("service", "1.1.0").name)
    endpoint.once()
    assert endpoint.versions() == {"service": "1.0.0"}
    assert endpoint.runs_live("service")


def test_a_server_that_is_away_changes_nothing_and_is_said(repository: Repository, endpoint: Endpoint) -> None:
    """EH-CLI-001, FR-STA-001."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    before = endpoint.processes()
    result = endpoint.run("once", "--server", "http://127.0.0.1:9", expect=1)
    assert "NETWORK" in result.stderr
    status = endpoint.status()
    assert (status["last_operation_status"], status["last_error_code"]) == ("failed", 20)
    assert status["installed_components"] == [{"name": "service", "version": "1.0.0"}]
    assert endpoint.processes() == before
    assert "NETWORK" in endpoint.run("status").stdout


def test_a_second_agent_leaves_with_exit_code_4(repository: Repository, endpoint: Endpoint) -> None:
    """FR-UPD-009, NFR-REL-005."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    with only_one(endpoint.paths.lock):
        said = endpoint.run("checknow", expect=4).stderr
    assert "BUSY" in said
    assert str(os.getpid()) in said


def test_a_component_that_died_is_started_again_by_recovery(repository: Repository, endpoint: Endpoint) -> None:
    """A reboot ends all programs; the first thing the agent does is to bring them back."""
    publish(repository, Package("service", "1.0.0"), Package("ui", "1.0.0"))
    endpoint.install(repository, "service", "ui")
    endpoint.run("stop", "ui")
    endpoint.kill_all()
    endpoint.run("recover")
    assert endpoint.runs_live("service")
    assert "ui" not in endpoint.processes(), "what was stopped by hand stays stopped"
    endpoint.run("start", "ui")
    assert endpoint.runs_live("ui")
    endpoint.run("stop")
    assert endpoint.processes() == {}


@pytest.mark.parametrize("damage", ["zeroed", "removed"])
def test_an_update_stops_a_program_whose_run_file_was_lost(
    repository: Repository, endpoint: Endpoint, damage: str
) -> None:
    """Else the old one would run on beside the new one."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    publish(repository, Package("service", "1.1.0"))
    file = endpoint.paths.run / "service.json"
    if damage == "zeroed":
        file.write_bytes(bytes(file.stat().st_size))
    else:
        file.unlink()
    endpoint.once()
    assert endpoint.installed() == {"service": "1.1.0"}
    assert endpoint.runs_live("service")


def test_an_agent_that_a_component_calls_is_not_stopped_with_it(repository: Repository, endpoint: Endpoint) -> None:
    """FR-UPD-001B: the main service may trigger the update that replaces it."""
    command = f"{sys.executable} -m agent --root-dir {endpoint.root} checknow"
    calling = f"#!/bin/sh\nuntil test -e go; do sleep 0.05; done\n{command} &\nwait\nsleep 3600\n"
    publish(repository, Package("service", "1.0.0", program=calling))
    endpoint.install(repository, "service")
    publish(repository, Package("service", "1.1.0"))
    (endpoint.paths.install("service") / "go").touch()
    wait_until(lambda: len(repository.final("service")) == 2, "it is updated and reported")
    assert endpoint.installed() == {"service": "1.1.0"}
    assert endpoint.runs_live("service")
    assert repository.final("service")[-1].trigger_source == "manual"


def test_web_components_are_checked_over_http(repository: Repository, endpoint: Endpoint) -> None:
    """L43."""
    port = free_port()
    publish(repository, web("service", "1.0.0", port))
    endpoint.install(repository, "service")
    publish(repository, web("service", "1.1.0", port, answer=500, timeout=1))
    assert "answered 500" in endpoint.once(expect=1).stderr
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        assert response.read() == b"1.0.0"


def test_a_second_agent_waits_for_the_first_as_long_as_it_is_told_to(
    repository: Repository, endpoint: Endpoint
) -> None:
    """FR-UPD-009: and who leaves is in the log."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    endpoint.run("checknow", "--wait", "0")
    with ExitStack() as first:
        first.enter_context(only_one(endpoint.paths.lock))
        assert "BUSY" in endpoint.run("checknow", "--wait", "0.3", expect=4).stderr
        with subprocess.Popen(
            [*AGENT, "--root-dir", str(endpoint.root), "once", "--wait", "60"], stdout=subprocess.DEVNULL
        ) as second:
            wait_until(lambda: "sleep" in Path(f"/proc/{second.pid}/wchan").read_text(), "it waits")
            first.close()
            assert second.wait(60) == 0
    busy = [json.loads(line) for line in endpoint.log().splitlines() if '"BUSY"' in line]
    assert [(event["severity"], event["trigger"]) for event in busy] == [("warning", "manual")]
    assert len(repository.checks) == 3
