"""Windows services beyond the contract: boots, force, faults, and an agent that is killed anywhere (FR-CMP-001)."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from simulators.windows import Killed, WindowsSimulator
from simulators.windows_services import AUTO, DEMAND
from support.endpoints import wait_until
from support.managers import ENVIRONMENT, Bench, QuickClock, windows_on

from agent.codes import Code
from agent.errors import AgentError
from agent.platform import win32
from agent.platform.win32 import ServiceStatus, ServiceStatusProcess
from repo_server.core.package import ServiceKind

STAYS = "#!/bin/sh\necho up >> said\nexec sleep 60\n"
STUBBORN = "#!/bin/sh\ntrap '' TERM\necho up >> said\nwhile :; do sleep 0.05; done\n"
NAME = "commandit-service"


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[WindowsSimulator]:
    simulator = WindowsSimulator(str(tmp_path), ENVIRONMENT)
    yield simulator
    assert simulator.open_handles == {}
    simulator.power_off()


@pytest.fixture
def bench(tmp_path: Path, simulator: WindowsSimulator) -> Bench:
    return Bench(tmp_path, ServiceKind.WINDOWS_SERVICE, lambda: windows_on(tmp_path, simulator, QuickClock()))


def processes(simulator: WindowsSimulator) -> int:
    return sum(service.process is not None for service in simulator.services.values())


def test_the_structures_have_the_sizes_of_windows() -> None:
    assert ctypes.sizeof(ServiceStatusProcess) == 36
    assert ctypes.sizeof(ServiceStatus) == 28


def test_a_service_starts_at_boot_exactly_while_it_should_run(bench: Bench, simulator: WindowsSimulator) -> None:
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    assert simulator.services[NAME].start_type == AUTO
    assert simulator.services[NAME].restarts_after == 10.0
    simulator.boot()
    assert bench.fresh().running(unit)
    bench.fresh().stop(unit)
    assert simulator.services[NAME].start_type == DEMAND
    simulator.boot()
    assert not bench.fresh().running(unit)


def test_a_path_with_blanks_is_one_argument(simulator: WindowsSimulator, tmp_path: Path) -> None:
    """Unquoted, the first word of the path would be looked for as a program, and run as SYSTEM."""
    folder = tmp_path / "Program Files"
    folder.mkdir()
    windows_on(folder, simulator).start(Bench(folder, ServiceKind.WINDOWS_SERVICE, lambda: None).unit(STAYS))  # type: ignore[arg-type, return-value]
    assert simulator.services[NAME].command_line == f'"{folder}/bin/serve" --port 0'


def test_a_service_that_was_ended_by_force_is_not_started_again_by_windows(
    bench: Bench, simulator: WindowsSimulator
) -> None:
    """Else its program would be back in the middle of the exchange of its folder."""
    simulator.restart_delay = 0.0
    unit, manager = bench.unit(STUBBORN, timeout=0.2), bench.fresh()
    manager.start(unit)
    wait_until(lambda: bench.lines() == ["up"], "it runs")
    manager.stop(unit)
    assert not manager.running(unit)
    assert processes(simulator) == 0
    assert bench.lines() == ["up"]


def test_a_program_that_windows_started_again_has_ended_for_who_started_it(
    bench: Bench, simulator: WindowsSimulator
) -> None:
    """Else a version that crashes every few seconds would pass its probation."""
    simulator.restart_delay = 0.0
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    first = simulator.services[NAME].process
    assert first is not None
    first.kill()
    wait_until(
        lambda: bench.fresh().running(unit) and simulator.services[NAME].process is not first, "it is started again"
    )
    assert not manager.running(unit)


def test_a_service_that_is_still_starting_is_asked_until_it_listens(bench: Bench, simulator: WindowsSimulator) -> None:
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    simulator.slow_to_accept = 3
    manager.stop(unit)
    assert "TerminateProcess" not in simulator.calls
    assert processes(simulator) == 0


def test_one_that_never_listens_is_ended_by_force(bench: Bench, simulator: WindowsSimulator) -> None:
    unit, manager = bench.unit(STAYS, timeout=0.3), bench.fresh()
    manager.start(unit)
    simulator.slow_to_accept = 10_000
    manager.stop(unit)
    assert "TerminateProcess" in simulator.calls
    assert processes(simulator) == 0


def test_what_survives_even_force_fails_the_stop_and_stays_wanted(bench: Bench, simulator: WindowsSimulator) -> None:
    unit, manager = bench.unit(STUBBORN, timeout=0.2), bench.fresh()
    manager.start(unit)
    wait_until(lambda: bench.lines() == ["up"], "it runs")
    simulator.deaf = True
    with pytest.raises(AgentError, match="still there 10 s after TerminateProcess") as caught:
        manager.stop(unit)
    assert caught.value.code is Code.STOP_FAILED
    assert manager.wanted("service")


def test_a_version_with_another_name_leaves_nothing_under_the_old_one(
    bench: Bench, simulator: WindowsSimulator
) -> None:
    manager = bench.fresh()
    manager.start(bench.unit(STAYS))
    manager.start(bench.unit(STAYS, name="CommandIT.Service"))
    assert list(simulator.services) == ["CommandIT.Service"]
    bench.fresh().stop(bench.unit(STAYS))
    assert processes(simulator) == 0


def test_what_is_uninstalled_is_deleted(bench: Bench, simulator: WindowsSimulator) -> None:
    unit = bench.unit(STAYS)
    bench.fresh().start(unit)
    manager = windows_on(bench.folder, simulator)
    manager.remove(unit)
    manager.remove(unit)
    assert simulator.services == {}
    assert not manager.wanted("service")


def test_how_a_service_ended_is_said_as_far_as_windows_knows(bench: Bench, simulator: WindowsSimulator) -> None:
    unit, manager = bench.unit("#!/bin/sh\nexit 7\n"), bench.fresh()
    manager.start(unit)
    wait_until(lambda: not manager.running(unit), "it ended")
    assert manager.last_output("service") == "its own exit code 7"
    simulator.services[NAME].exit_code = 1067
    assert manager.last_output("service") == "Windows error 1067"


STARTING = ("OpenSCManagerW", "OpenServiceW", "CreateServiceW", "ChangeServiceConfigW", "ChangeServiceConfig2W",
            "StartServiceW", "QueryServiceStatusEx")  # fmt: skip
STOPPING = ("OpenSCManagerW", "OpenServiceW", "ChangeServiceConfigW", "ChangeServiceConfig2W", "ControlService",
            "OpenProcess", "QueryServiceStatusEx")  # fmt: skip


@pytest.mark.parametrize("call", STARTING)
def test_whatever_windows_refuses_while_starting_is_said_by_call_and_number(
    bench: Bench, simulator: WindowsSimulator, call: str
) -> None:
    simulator.failing[call] = [win32.ERROR_ACCESS_DENIED] * 100
    with pytest.raises(AgentError, match=f"cannot start .*{call} failed with Windows error 5") as caught:
        bench.fresh().start(bench.unit(STAYS))
    assert caught.value.code is Code.START_FAILED
    assert processes(simulator) == (call == "QueryServiceStatusEx" and "StartServiceW" in simulator.calls)


@pytest.mark.parametrize("call", STOPPING)
def test_whatever_windows_refuses_while_stopping_is_never_taken_for_stopped(
    bench: Bench, simulator: WindowsSimulator, call: str
) -> None:
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    simulator.failing[call] = [win32.ERROR_ACCESS_DENIED] * 100
    with pytest.raises(AgentError, match=f"cannot stop .*{call} failed with Windows error 5") as caught:
        manager.stop(unit)
    assert caught.value.code is Code.STOP_FAILED
    assert manager.wanted("service")
    simulator.failing.clear()
    manager.stop(unit)
    assert processes(simulator) == 0


@pytest.mark.parametrize("then", ["start", "stop"])
def test_killed_before_any_call_the_next_agent_sees_what_should_run_and_brings_it_about(
    tmp_path: Path, then: str
) -> None:
    for at in itertools.count():
        folder = tmp_path / f"at-{at}"
        folder.mkdir()
        simulator = WindowsSimulator(str(folder), ENVIRONMENT, dying_at=at)
        bench = Bench(folder, ServiceKind.WINDOWS_SERVICE, partial(windows_on, folder, simulator, QuickClock()))
        try:
            run_through(bench)
        except Killed:
            pass
        else:
            assert at > simulator.calls.index("ControlService") > 20
            break
        simulator.dying_at = None
        manager, unit = bench.fresh(), bench.started[0]
        # A program may run, now or after the next boot, only if it is known that it should.
        assert manager.wanted("service") or not simulator.services, at
        if then == "start":
            manager.start(unit)
            assert manager.running(unit), at
            assert processes(simulator) == 1, at
        manager.stop(unit)
        assert processes(simulator) == 0, at
        assert [service.start_type for service in simulator.services.values()] in ([], [DEMAND]), at


def run_through(bench: Bench) -> None:
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    manager.stop(unit)


def test_on_another_system_the_missing_libraries_are_said() -> None:
    with pytest.raises(OSError, match="expected Windows"):
        win32.load_win32()
