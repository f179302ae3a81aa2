"""The agent itself with launchd and as a Windows service; systemd is in test_own_service.py (FR-BST-002)."""

from __future__ import annotations

import os
import plistlib
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from simulators.launchctl import LaunchdSimulator
from simulators.windows import WindowsSimulator
from support.endpoints import wait_until
from support.managers import ENVIRONMENT, QuickClock

from agent.codes import Code
from agent.errors import AgentError
from agent.platform import win32
from agent.platform.launchctl import Answer
from agent.platform.launchd_ownservice import LABEL, LaunchdOwnService
from agent.platform.ownservice import RunAs
from agent.platform.windows_ownservice import WindowsOwnService
from agent.platform.windows_service import NAME
from agent.registration import OwnRegistration

PROGRAM = """\
#!/bin/sh
trap 'echo ended "$@" >> "$0.said"; exit 0' TERM
echo began "$@" >> "$0.said"
while :; do /bin/sleep 0.05; done
"""


@dataclass
class System:
    """A simulated system, and the agent's program on it."""

    own: Callable[..., OwnRegistration]
    program: Path
    pid: Callable[[], int | None]
    boot: Callable[[], None]

    def said(self) -> list[str]:
        path = Path(f"{self.program}.said")
        return path.read_text().splitlines() if path.exists() else []


class HastyClock(QuickClock):
    """Believes that it waited."""

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


def program_in(folder: Path, name: str = "commandit updater") -> Path:
    program = folder / name
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return program


@contextmanager
def macos(folder: Path) -> Iterator[System]:
    simulator = LaunchdSimulator(throttle_seconds=0.2)
    program = program_in(folder)
    for name in ("LaunchDaemons", "run"):
        (folder / name).mkdir()

    def own(command: Path = program, own_pids: frozenset[int] = frozenset()) -> OwnRegistration:
        daemons, run = folder / "LaunchDaemons", folder / "run"
        return LaunchdOwnService(simulator, QuickClock(), [str(command)], daemons, run, own_pids)

    def pid() -> int | None:
        simulator(["print", f"system/{LABEL}"], 1.0)
        job = simulator.jobs.get(LABEL)
        return None if job is None or job.process is None else job.process.pid

    try:
        yield System(own, program, pid, lambda: simulator.boot(folder / "LaunchDaemons"))
    finally:
        simulator.power_off()


@contextmanager
def windows(folder: Path) -> Iterator[System]:
    simulator = WindowsSimulator(str(folder), ENVIRONMENT, restart_delay=0.2)
    program = program_in(folder)

    def own(command: Path = program, own_pids: frozenset[int] = frozenset()) -> OwnRegistration:
        return WindowsOwnService(simulator.api(), QuickClock(), [str(command)], own_pids)

    def pid() -> int | None:
        simulator.catch_up()
        service = simulator.services.get(NAME)
        return None if service is None or service.process is None else service.process.pid

    try:
        yield System(own, program, pid, simulator.boot)
        assert simulator.open_handles == {}
    finally:
        simulator.power_off()


SYSTEMS = {"macos": macos, "windows": windows}


@pytest.fixture(params=sorted(SYSTEMS))
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    with SYSTEMS[request.param](tmp_path) as system:
        yield system


def test_registered_it_runs_and_runs_again_when_it_failed_and_after_each_boot(system: System) -> None:
    own = system.own()
    assert own.current() is RunAs.NONE
    own.register(RunAs.DAEMON, 7200)
    assert own.current() is RunAs.DAEMON
    first = system.pid()
    assert first is not None
    wait_until(lambda: len(system.said()) == 1, "it began")
    os.kill(first, 9)
    wait_until(lambda: system.pid() not in {None, first}, "it runs again")
    wait_until(lambda: len(system.said()) == 2, "it began again")
    system.boot()
    wait_until(lambda: len(system.said()) == 3, "it began after the boot")
    assert system.said()[-1] in {"began run", "began service"}


def test_registering_again_leaves_what_runs_and_another_program_takes_its_place(system: System, tmp_path: Path) -> None:
    system.own().register(RunAs.DAEMON, 7200)
    first = system.pid()
    wait_until(lambda: len(system.said()) == 1, "it began")
    system.own().register(RunAs.DAEMON, 7200)
    assert system.pid() == first
    other = program_in(tmp_path, "other")
    system.own(other).register(RunAs.DAEMON, 7200)
    assert system.pid() not in {None, first}
    wait_until(lambda: Path(f"{other}.said").exists(), "the other program began")
    assert system.said()[-1].startswith("ended")


def test_a_new_version_writes_its_own_registration_and_touches_nothing_that_runs(
    system: System, tmp_path: Path
) -> None:
    """FR-SUP-001: after a self-update; who takes the agent out, or never had it in, is left in peace."""
    assert not system.own().refresh(7200)
    assert system.own().current() is RunAs.NONE
    system.own().register(RunAs.DAEMON, 7200)
    first = system.pid()
    wait_until(lambda: len(system.said()) == 1, "it began")
    assert not system.own().refresh(7200), "it is this version's"
    other = program_in(tmp_path, "other")
    assert system.own(other).refresh(7200)
    assert not system.own(other).refresh(7200)
    assert (system.pid(), len(system.said())) == (first, 1)
    system.boot()
    wait_until(lambda: Path(f"{other}.said").exists(), "the next boot starts what is written now")


def test_on_windows_a_service_that_somebody_disabled_stays_so(tmp_path: Path) -> None:
    simulator = WindowsSimulator(str(tmp_path), ENVIRONMENT)
    one, other = (WindowsOwnService(simulator.api(), QuickClock(), [name]) for name in ("one.exe", "other.exe"))
    simulator.failing["StartServiceW"] = [win32.ERROR_SERVICE_ALREADY_RUNNING]
    one.register(RunAs.DAEMON, 7200)
    simulator.services[NAME].start_type = 4
    assert other.refresh(7200)
    assert simulator.services[NAME].command_line == "other.exe service"
    assert simulator.services[NAME].start_type == 4


def test_taken_out_it_ends_in_its_own_time_and_does_not_come_back(system: System) -> None:
    system.own().register(RunAs.DAEMON, 7200)
    wait_until(lambda: len(system.said()) == 1, "it began")
    system.own().register(RunAs.NONE, 7200)
    assert system.own().current() is RunAs.NONE
    assert [line.split()[0] for line in system.said()] == ["began", "ended"]
    system.boot()
    time.sleep(0.3)
    assert system.pid() is None
    system.own().register(RunAs.NONE, 7200)


def test_taken_out_from_within_it_is_not_waited_for(system: System) -> None:
    """Recovery may finish a removal in the agent's own job or service: to wait for its end would be for ever."""
    system.program.write_text(PROGRAM.replace("; exit 0", ""))
    system.own().register(RunAs.DAEMON, 7200)
    wait_until(lambda: len(system.said()) == 1, "it began")
    pid = system.pid()
    assert pid is not None
    system.own(own_pids=frozenset({pid})).register(RunAs.NONE, 7200)
    assert system.pid() == pid
    if isinstance(system.own(), WindowsOwnService):
        wait_until(lambda: len(system.said()) == 2, "it was asked to end when this process has")
    system.boot()
    assert system.pid() is None


def test_on_macos_a_timer_starts_it_for_each_check(tmp_path: Path) -> None:
    with macos(tmp_path) as system:
        own = system.own()
        own.register(RunAs.TIMER, 7200)
        path = tmp_path / "LaunchDaemons" / f"{LABEL}.plist"
        content = plistlib.loads(path.read_bytes())
        assert content["ProgramArguments"] == [str(system.program), "once", "--if-due"]
        assert (content["StartInterval"], content["RunAtLoad"], "KeepAlive" in content) == (900, True, False)
        assert own.current() is RunAs.TIMER
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        own.register(RunAs.DAEMON, 7200)
        assert own.current() is RunAs.DAEMON


@pytest.mark.parametrize("verb", ["print", "enable", "bootstrap", "bootout"])
def test_what_launchd_refuses_is_said_with_what_to_do(tmp_path: Path, verb: str) -> None:
    with macos(tmp_path) as system:
        own = system.own()
        assert isinstance(own, LaunchdOwnService)
        own = replace(own, clock=HastyClock())
        simulator = own.launchctl
        assert isinstance(simulator, LaunchdSimulator)
        if verb == "bootout":
            own.register(RunAs.DAEMON, 7200)
        simulator.failing[verb] = [Answer(5, "Input/output error")] * 10_000
        with pytest.raises(AgentError, match=rf"launchctl {verb}.*Input/output error.*run install again") as caught:
            own.register(RunAs.NONE if verb == "bootout" else RunAs.DAEMON, 7200)
        assert caught.value.code is Code.START_FAILED


def test_on_windows_the_service_starts_late_and_says_what_it_is_for(tmp_path: Path) -> None:
    simulator = WindowsSimulator(str(tmp_path), ENVIRONMENT)
    program = program_in(tmp_path)
    WindowsOwnService(simulator.api(), QuickClock(), [str(program)]).register(RunAs.DAEMON, 7200)
    service = simulator.services[NAME]
    assert (service.start_type, service.flags, service.restarts_after) == (2, {3: True, 4: True}, 10.0)
    assert "up to date" in service.text
    assert shlex.split(service.command_line) == [str(program), "service"]
    simulator.power_off()


def test_on_windows_there_is_no_timer(tmp_path: Path) -> None:
    own = WindowsOwnService(WindowsSimulator("", {}).api(), QuickClock(), [sys.executable])
    with pytest.raises(AgentError, match="expected --run-as daemon") as caught:
        own.register(RunAs.TIMER, 7200)
    assert caught.value.code is Code.NOT_SUPPORTED


@pytest.mark.parametrize("call", ["OpenSCManagerW", "CreateServiceW", "ChangeServiceConfig2W", "StartServiceW"])
def test_what_windows_refuses_is_said_with_what_to_do(tmp_path: Path, call: str) -> None:
    simulator = WindowsSimulator(str(tmp_path), ENVIRONMENT)
    simulator.failing[call] = [win32.ERROR_ACCESS_DENIED] * 100
    own = WindowsOwnService(simulator.api(), QuickClock(), [str(program_in(tmp_path))])
    with pytest.raises(AgentError, match=rf"{call} failed with Windows error 5.*run the same command again"):
        own.register(RunAs.DAEMON, 7200)
    assert simulator.open_handles == {}
