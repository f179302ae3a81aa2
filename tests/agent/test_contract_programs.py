"""The contract of the port ``Programs``, on every adapter, with real programs (L43, L44)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulators.windows import WindowsSimulator
from support.endpoints import wait_until
from support.managers import ENVIRONMENT

from agent.platform import win32
from agent.platform.jobs import JobTether
from agent.platform.portable import PortablePrograms, SessionTether
from agent.platform.proc import start_ticks
from agent.platform.programs import LocalPrograms
from agent.ports import Programs

FAMILY = {"start_new_session": True}
"""Stands for the job: what a program starts belongs to it."""


def local(folder: Path, simulator: WindowsSimulator) -> Programs:
    return LocalPrograms(ENVIRONMENT)


def macos(folder: Path, simulator: WindowsSimulator) -> Programs:
    return PortablePrograms(ENVIRONMENT, SessionTether())


def windows(folder: Path, simulator: WindowsSimulator) -> Programs:
    return PortablePrograms(ENVIRONMENT, JobTether(simulator.api(), FAMILY))


@pytest.fixture
def simulator() -> Iterator[WindowsSimulator]:
    simulator = WindowsSimulator("", {})
    yield simulator
    assert simulator.open_handles == {}


@pytest.fixture(params=[local, macos, windows])
def programs(request: pytest.FixtureRequest, tmp_path: Path, simulator: WindowsSimulator) -> Programs:
    make: Callable[[Path, WindowsSimulator], Programs] = request.param
    return make(tmp_path, simulator)


def test_a_program_gets_its_folder_and_its_facts_and_nothing_of_ours(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMANDIT_AUTH_SECRET", "hidden")
    folder = tmp_path / "staged"
    folder.mkdir()
    finished = programs.run(["sh", "-c", "pwd; echo $FACT; env"], folder, {"FACT": "one"}, 10.0)
    assert finished.exit_code == 0
    assert finished.output.splitlines()[:2] == [str(folder), "one"]
    assert "hidden" not in finished.output


def test_the_folders_own_program_comes_before_the_systems(programs: Programs, tmp_path: Path) -> None:
    own = tmp_path / "true"
    own.write_text("#!/bin/sh\necho own >&2\nexit 7\n")
    own.chmod(0o755)
    finished = programs.run(["true"], tmp_path, {}, 10.0)
    assert (finished.exit_code, finished.output) == (7, "own")


def test_one_that_is_late_is_ended_with_everything_it_started(programs: Programs, tmp_path: Path) -> None:
    began = time.monotonic()
    finished = programs.run(["sh", "-c", "sleep 61 & echo $!; sleep 62"], tmp_path, {}, 0.4)
    assert time.monotonic() - began < 30
    assert finished.exit_code is None
    child = int(finished.output)
    wait_until(lambda: start_ticks(child) is None, "its child is gone")


def test_what_one_that_is_done_left_running_is_ended_too(programs: Programs, tmp_path: Path) -> None:
    finished = programs.run(["sh", "-c", "sleep 61 & echo $!"], tmp_path, {}, 10.0)
    assert finished.exit_code == 0
    child = int(finished.output)
    wait_until(lambda: start_ticks(child) is None, "its child is gone")


def test_of_much_output_the_end_is_kept(programs: Programs, tmp_path: Path) -> None:
    finished = programs.run(["sh", "-c", "seq 1 20000"], tmp_path, {}, 20.0)
    assert finished.output.endswith("19999\n20000")
    assert len(finished.output) <= 16 * 1024, "one event of the log holds it"
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_started_is_an_error(programs: Programs, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        programs.run(["bin/none"], tmp_path, {}, 10.0)


def test_on_macos_nothing_of_a_program_outlives_a_killed_agent(tmp_path: Path) -> None:
    """Otherwise it would go on beside the recovery. Linux: test_process.py; on Windows the job ends with us."""
    script = "(exec sleep 61) & echo $! > child; echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 62"
    code = (
        "import os, sys; from pathlib import Path; from agent.platform.portable import PortablePrograms, SessionTether;"
        "programs = PortablePrograms(dict(os.environ), SessionTether());"
        f"programs.run(['sh', '-c', {script!r}], Path(sys.argv[1]), {{}}, 60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as agent:
        wait_until((tmp_path / "pid").exists, "the program runs")
        agent.kill()
    for name in ("pid", "child"):
        pid = int((tmp_path / name).read_text())
        wait_until(lambda pid=pid: start_ticks(pid) is None, f"{name} is gone")


def test_a_program_that_never_stops_writing_costs_no_memory_and_is_ended_in_time(
    programs: Programs, tmp_path: Path
) -> None:
    finished = programs.run(["sh", "-c", "exec yes"], tmp_path, {}, 0.5)
    assert finished.exit_code is None
    assert "bytes before this were cut]" in finished.output
    assert len(finished.output) < 16 * 1024


@pytest.mark.parametrize(
    "call", ["CreateJobObjectW", "SetInformationJobObject", "OpenProcess", "AssignProcessToJobObject"]
)
def test_a_program_that_cannot_be_tied_does_not_run_on(tmp_path: Path, simulator: WindowsSimulator, call: str) -> None:
    """Untied, it would outlive its time."""
    simulator.failing[call] = [win32.ERROR_ACCESS_DENIED]
    with pytest.raises(OSError, match=f"{call} failed with Windows error 5"):
        windows(tmp_path, simulator).run(["sh", "-c", "echo $$ > pid; exec sleep 61"], tmp_path, {}, 30.0)
    time.sleep(0.2)
    pid = tmp_path / "pid"
    assert not pid.exists() or start_ticks(int(pid.read_text() or "0")) is None
