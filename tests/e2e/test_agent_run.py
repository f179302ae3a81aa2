"""The resident agent: small, quiet, checks when it should, and keeps components running (NFR-PER-001, FR-UPD-001)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import Package
from support.endpoints import AGENT, Endpoint, endpoint_in, wait_until
from support.triggers import ask, calling

from agent.trigger import SPACING

MOST_KIB = 14 * 1024


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "downloads") as repository:
        package = Package("service", "1.0.0")
        repository.publish(package.name, package.build())
        yield repository


@pytest.fixture
def endpoint(tmp_path: Path, repository: Repository) -> Iterator[Endpoint]:
    with endpoint_in(tmp_path / "endpoint") as endpoint:
        endpoint.install(repository, "service")
        yield endpoint


@contextmanager
def resident(endpoint: Endpoint) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*AGENT, "--root-dir", str(endpoint.root), "run"], stderr=subprocess.PIPE, text=True
    ) as agent:
        try:
            yield agent
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0
        finally:
            agent.kill()


def children_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def wait_idle(agent: subprocess.Popen[str]) -> None:
    """Wait until the daemon waits: no child, and asleep in poll."""

    def idle() -> bool:
        return not children_of(agent.pid) and "poll" in Path(f"/proc/{agent.pid}/wchan").read_text()

    wait_until(idle, "the daemon is idle")


def test_it_updates_at_a_hangup_and_is_small_again_afterwards(endpoint: Endpoint, repository: Repository) -> None:
    """SIGHUP means: check now."""
    with resident(endpoint) as agent:
        wait_idle(agent)
        package = Package("service", "1.1.0")
        repository.publish(package.name, package.build())
        agent.send_signal(signal.SIGHUP)
        wait_until(lambda: endpoint.installed() == {"service": "1.1.0"}, "it has updated")
        wait_idle(agent)
        memory = Path(f"/proc/{agent.pid}/status").read_text()
        kib = int(memory.split("VmRSS:")[1].split()[0])
        assert kib <= MOST_KIB
    assert endpoint.runs_live("service"), "components outlive the agent"
    assert repository.final("service")[-1].trigger_source == "manual"


def test_another_program_can_ask_for_a_check_once_in_a_while(endpoint: Endpoint, repository: Repository) -> None:
    """FR-UPD-001B: by the socket, and while the cycle that it started runs nobody starts another."""
    socket = endpoint.paths.run / "update.sock"
    with resident(endpoint) as agent:
        wait_until(socket.exists, "it is there")
        wait_idle(agent)
        package = Package("service", "1.1.0", health='kind = "process"\nprobation_seconds = 3')
        repository.publish(package.name, package.build())
        began = time.monotonic()
        assert ask(socket) == "accepted\n"
        assert ask(socket) == "already running\n"
        wait_until(lambda: endpoint.installed() == {"service": "1.1.0"}, "it has updated")
        wait_idle(agent)
        if time.monotonic() - began < SPACING / 2:
            # A machine that took longer would be let through, and right to be.
            assert re.fullmatch(r"too soon, in \d+ s\n", ask(socket))
        assert ask(socket, b"uninstall\n").startswith("not understood")
        assert repository.calls["/v1/check"] == 2
    assert not socket.exists()
    assert repository.final("service")[-1].trigger_source == "manual"


def test_a_caller_who_says_nothing_keeps_the_agent_from_nothing(endpoint: Endpoint, repository: Repository) -> None:
    socket = endpoint.paths.run / "update.sock"
    with resident(endpoint) as agent:
        wait_until(socket.exists, "it is there")
        wait_idle(agent)
        with calling(socket), calling(socket):
            agent.send_signal(signal.SIGHUP)
            wait_until(lambda: repository.calls["/v1/check"] == 2, "it checks all the same")
        wait_idle(agent)


def test_what_an_agent_that_was_killed_left_is_no_obstacle(endpoint: Endpoint, repository: Repository) -> None:
    socket = endpoint.paths.run / "update.sock"
    with subprocess.Popen([*AGENT, "--root-dir", str(endpoint.root), "run"], stderr=subprocess.DEVNULL) as agent:
        wait_until(socket.exists, "it listens")
        agent.kill()
    assert socket.exists()

    def accepted() -> bool:
        with suppress(OSError):
            return ask(socket) == "accepted\n"
        return False

    with resident(endpoint) as agent:
        wait_until(accepted, "the next one listens")
        wait_until(lambda: repository.calls["/v1/check"] == 2, "it checks")
        wait_idle(agent)
        socket.unlink()
        agent.send_signal(signal.SIGHUP)
        wait_until(socket.exists, "it listens anew, for nobody could have found it")
        wait_idle(agent)


def test_it_does_not_check_before_the_persisted_time(endpoint: Endpoint, repository: Repository) -> None:
    """FR-UPD-001: the next check survives a restart."""
    with resident(endpoint) as agent:
        wait_idle(agent)
    assert repository.calls["/v1/check"] == 1


def test_it_starts_a_component_that_died_again(endpoint: Endpoint) -> None:
    with resident(endpoint) as agent:
        wait_idle(agent)
        for _ in range(2):
            (before,) = endpoint.processes()["service"]
            os.kill(before, signal.SIGKILL)
            wait_until(lambda: endpoint.processes().get("service", [before]) != [before], "it is started again")  # noqa: B023 -- used at once
            wait_idle(agent)
        assert endpoint.runs_live("service")


@pytest.mark.parametrize("dies", [True, False])
def test_a_damaged_run_file_ends_no_supervision(endpoint: Endpoint, dies: bool) -> None:
    """Neither is the program started beside itself."""
    file = endpoint.paths.run / "service.json"
    with resident(endpoint) as agent:
        wait_idle(agent)
        (before,) = endpoint.processes()["service"]
        file.write_bytes(bytes(100))
        if dies:
            os.kill(before, signal.SIGKILL)
        else:
            agent.send_signal(signal.SIGHUP)
        wait_until(lambda: file.read_bytes().strip(b"\0"), "its run file is mended")
        wait_idle(agent)
        wait_until(lambda: endpoint.runs_live("service"), "one program runs")
        assert (endpoint.processes()["service"] == [before]) is not dies
        os.kill(endpoint.processes()["service"][0], signal.SIGKILL)
        wait_until(lambda: endpoint.runs_live("service"), "it is started again")
        wait_idle(agent)


def test_a_component_that_never_stops_writing_does_not_fill_the_disk(tmp_path: Path, repository: Repository) -> None:
    """Between two checks, and without the component noticing."""
    noisy = "#!/bin/sh\nwhile :; do head -c 4000000 /dev/zero || exit 1; sleep 0.2; done\n"
    package = Package("ui", "1.0.0", program=noisy)
    repository.publish(package.name, package.build())
    with endpoint_in(tmp_path / "noisy") as endpoint:
        endpoint.install(repository, "ui")
        (before,) = endpoint.processes()["ui"]
        log = endpoint.paths.run / "ui.log"
        with resident(endpoint):
            wait_until(lambda: log.stat().st_size > 24 << 20, "it wrote much")
            for _ in range(2):
                wait_until(lambda: log.stat().st_size < 8 << 20, "its log was cut")
                wait_until(lambda: log.stat().st_size > 8 << 20, "it goes on")
        assert endpoint.processes()["ui"] == [before]
        assert log.with_name("ui.log.1").stat().st_size <= 4 << 20
        endpoint.once()
        assert log.stat().st_size < 24 << 20
        assert repository.calls["/v1/check"] == 2


def test_it_leaves_alone_what_was_stopped_by_hand(endpoint: Endpoint) -> None:
    with resident(endpoint) as agent:
        wait_idle(agent)
        endpoint.run("stop", "service")
        wait_idle(agent)
        endpoint.run("recover")
        assert endpoint.processes() == {}


def test_what_ended_while_somebody_stopped_it_by_hand_is_not_started_again(endpoint: Endpoint) -> None:
    """The daemon sees the end of a program before the stop is over; its own start then comes after it."""
    endpoint.run("start", "--if-wanted", "service")
    assert endpoint.runs_live("service")
    endpoint.run("stop", "service")
    endpoint.run("start", "--if-wanted", "service")
    assert endpoint.processes() == {}
    endpoint.run("start", "service")
    assert endpoint.runs_live("service")


def test_at_its_start_it_finishes_what_was_interrupted(endpoint: Endpoint, repository: Repository) -> None:
    """NFR-REL-003: recovery comes before the first wait, not with the next check."""
    package = Package("service", "1.1.0", health='kind = "process"\nprobation_seconds = 60')
    repository.publish(package.name, package.build())
    with subprocess.Popen([*AGENT, "--root-dir", str(endpoint.root), "once"], stderr=subprocess.DEVNULL) as once:
        wait_until(lambda: endpoint.versions() == {"service": "1.1.0"} and endpoint.runs_live("service"), "1.1.0 runs")
        once.kill()
    with resident(endpoint) as agent:
        wait_until(lambda: not endpoint.paths.journal.exists(), "it has recovered")
        wait_idle(agent)
    assert endpoint.versions() == {"service": "1.0.0"}
    assert endpoint.runs_live("service")


def test_a_signal_during_a_cycle_ends_both_and_leaves_a_whole_set(endpoint: Endpoint, repository: Repository) -> None:
    package = Package("service", "1.1.0", health='kind = "process"\nprobation_seconds = 60')
    repository.publish(package.name, package.build())
    with resident(endpoint) as agent:
        wait_idle(agent)
        agent.send_signal(signal.SIGHUP)
        wait_until(lambda: endpoint.versions() == {"service": "1.1.0"} and endpoint.runs_live("service"), "1.1.0 runs")
    assert endpoint.versions() == {"service": "1.0.0"}
    assert endpoint.runs_live("service")
    assert not endpoint.paths.journal.exists()


def test_the_daemon_imports_little(endpoint: Endpoint) -> None:
    """NFR-PER-001: nothing of ours but the daemon itself, and nothing that is not in the standard library."""
    modules = "sys, agent.__main__, agent.daemon, agent.platform.places, agent.platform.spawn"
    code = f"import {modules}; print('\\n'.join(sys.modules))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in names if name.partition(".")[0] in {"agent", "repo_server"}}
    assert ours == {
        "agent", "agent.__main__", "agent.appointment", "agent.daemon", "agent.platform", "agent.platform.files",
        "agent.platform.logcap", "agent.platform.places", "agent.platform.posix_files", "agent.platform.posix_waiting",
        "agent.platform.proc", "agent.platform.resident", "agent.platform.runfile", "agent.platform.spawn",
        "agent.platform.triggersocket", "agent.supervision", "agent.trigger",
    }  # fmt: skip
    heavy = {"click", "cryptography", "msgspec", "urllib3", "tuf", "subprocess", "dataclasses", "logging", "typing"}
    assert not heavy & set(names)
