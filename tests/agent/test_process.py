"""Components as child processes: found, stopped and never confused with somebody else's (FR-CMP-001, FR-CMP-004)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.endpoints import wait_until

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.proc import boot_id, holders_of, start_ticks
from agent.platform.process import Launch, ProcessManager
from agent.platform.programs import LocalPrograms
from agent.ports import Unit
from repo_server.core.package import Service, ServiceKind

ENVIRONMENT = {"PATH": os.environ["PATH"]}


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return make(tmp_path, "#!/bin/sh\nwhile :; do sleep 60 & wait $!; done\n")


def make(folder: Path, program: str, timeout: float = 5.0) -> Unit:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "serve").write_text(program)
    (folder / "bin" / "serve").chmod(0o755)
    return Unit("service", folder, Service(ServiceKind.PROCESS, None, ("bin/serve",), timeout))


@pytest.fixture
def manager(tmp_path: Path, unit: Unit) -> Iterator[ProcessManager]:
    manager = fresh(tmp_path)
    yield manager
    manager.stop(unit)


def fresh(folder: Path) -> ProcessManager:
    (folder / "run").mkdir(exist_ok=True)
    return ProcessManager(folder / "run", Launch(ENVIRONMENT, lambda: str(uuid.uuid4())))


def run_file(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "run" / "service.json").read_text())
    return content


def test_starting_twice_is_starting_once(manager: ProcessManager, unit: Unit, tmp_path: Path) -> None:
    manager.start(unit)
    pid = run_file(tmp_path)["pid"]
    manager.start(unit)
    assert run_file(tmp_path)["pid"] == pid
    assert manager.running(unit)
    manager.stop(unit)
    manager.stop(unit)
    assert not manager.running(unit)
    assert not manager.wanted("service")


def test_another_agent_process_finds_what_the_first_started(
    manager: ProcessManager, unit: Unit, tmp_path: Path
) -> None:
    manager.start(unit)
    other = fresh(tmp_path)
    assert other.running(unit)
    other.stop(unit)
    assert not manager.running(unit)


def test_a_program_whose_start_was_never_noted_is_found_by_its_token(
    manager: ProcessManager, unit: Unit, tmp_path: Path
) -> None:
    """The agent was killed between starting it and writing its process id down."""
    manager.start(unit)
    noted = run_file(tmp_path)
    pid = noted["pid"]
    assert isinstance(pid, int)
    (tmp_path / "run" / "service.json").write_text(json.dumps({**noted, "pid": None, "ticks": None}))
    other = fresh(tmp_path)
    wait_until(lambda: other.running(unit), "the program has its environment")
    other.stop(unit)
    assert start_ticks(pid) is None


def test_a_process_id_that_now_belongs_to_somebody_else_is_left_alone(
    manager: ProcessManager, unit: Unit, tmp_path: Path
) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        ticks = start_ticks(stranger.pid)
        assert ticks is not None
        for noted in (
            {"component": "service", "token": "x", "boot": boot_id(), "pid": stranger.pid, "ticks": ticks - 1},
            {"component": "service", "token": "x", "boot": "another boot", "pid": stranger.pid, "ticks": ticks},
        ):
            (tmp_path / "run" / "service.json").write_text(json.dumps(noted))
            assert not manager.running(unit)
            manager.stop(unit)
            assert stranger.poll() is None
        stranger.kill()


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    """Also what ignores SIGTERM in the same session."""
    program = "#!/bin/sh\n(trap '' TERM; echo up > up; while :; do sleep 0.2; done) &\nwait\n"
    unit = make(tmp_path, program, timeout=0.5)
    manager = fresh(tmp_path)
    manager.start(unit)
    token = run_file(tmp_path)["token"]
    wait_until((tmp_path / "up").exists, "the child runs")
    manager.stop(unit)
    assert holders_of(f"COMMANDIT_LAUNCH={token}".encode()) == []


LEAVES = """\
#!{python} -IS
import os, pathlib, time
if os.fork() == 0:
    os.setsid()
    pathlib.Path("stray.tmp").write_text(str(os.getpid()))
    os.rename("stray.tmp", "stray")
    time.sleep(60)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(60)", "os._exit(0)"])
def test_what_left_the_session_is_stopped_as_well(tmp_path: Path, then: str) -> None:
    """A helper, or a program that makes itself a daemon: it would hold the port that the next version needs."""
    unit = make(tmp_path, LEAVES.format(python=sys.executable, then=then))
    manager = fresh(tmp_path)
    manager.start(unit)
    wait_until((tmp_path / "stray").exists, "the helper runs")
    manager.stop(unit)
    assert start_ticks(int((tmp_path / "stray").read_text())) is None


def test_what_a_killed_program_left_ends_before_it_is_started_again(tmp_path: Path) -> None:
    """Else the second launch fails where the first one's helper sits, and no later stop would find that helper."""
    unit = make(tmp_path, LEAVES.format(python=sys.executable, then="time.sleep(60)"))
    manager = fresh(tmp_path)
    manager.start(unit)
    wait_until((tmp_path / "stray").exists, "the helper runs")
    stray = int((tmp_path / "stray").read_text())
    pid = run_file(tmp_path)["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not manager.running(unit), "the program is dead")
    manager.start(unit)
    assert start_ticks(stray) is None
    manager.stop(unit)


def test_a_program_that_called_us_is_not_taken_for_a_stray(tmp_path: Path) -> None:
    """Stopping a component from a command that it started must not kill what waits for that command's end."""
    marker = {"COMMANDIT_LAUNCH": "mine"}
    code = "from agent.platform.proc import holders_of; print(holders_of(b'COMMANDIT_LAUNCH=mine'))"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"]
    called = subprocess.run(command, env=marker, capture_output=True, text=True, check=True)
    assert called.stdout == "[]\n"


def test_what_an_earlier_launch_said_is_not_said_of_this_one(tmp_path: Path) -> None:
    manager = fresh(tmp_path)
    for word in ("first", "second"):
        unit = make(tmp_path, f"#!/bin/sh\necho {word}; exec sleep 60\n")
        manager.start(unit)
        wait_until(lambda word=word: word in manager.last_output("service"), "it spoke")
        manager.stop(unit)
    assert manager.last_output("service") == "second"


def test_a_program_gets_nothing_of_the_agents_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMANDIT_AUTH_SECRET", "hidden")
    unit = make(tmp_path, "#!/bin/sh\nenv > env.tmp; mv env.tmp env.txt; exec sleep 60\n")
    manager = fresh(tmp_path)
    manager.start(unit)
    wait_until((tmp_path / "env.txt").exists, "the program ran")
    manager.stop(unit)
    names = {line.partition("=")[0] for line in (tmp_path / "env.txt").read_text().splitlines()}
    own = {"COMMANDIT_COMPONENT", "COMMANDIT_LAUNCH", "COMMANDIT_RUN_FILE"}
    assert names <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_"} | own


@pytest.mark.parametrize("program", [None, "not a program"])
def test_a_program_that_cannot_be_started_is_said(tmp_path: Path, program: str | None) -> None:
    unit = make(tmp_path, program or "")
    if program is None:
        (tmp_path / "bin" / "serve").unlink()
    else:
        (tmp_path / "bin" / "serve").chmod(0o644)
    with pytest.raises(AgentError, match="cannot start") as caught:
        fresh(tmp_path).start(unit)
    assert caught.value.code is Code.START_FAILED


def test_what_a_program_says_is_kept_for_its_owner(manager: ProcessManager, tmp_path: Path) -> None:
    unit = make(tmp_path, "#!/bin/sh\necho hello; echo trouble >&2; exec sleep 60\n")
    manager.start(unit)
    wait_until(lambda: "trouble" in manager.last_output("service"), "the program spoke")
    assert manager.last_output("service") == "hello\ntrouble"
    assert (tmp_path / "run" / "service.log").stat().st_mode & 0o777 == 0o600


def test_a_hook_that_is_late_is_ended_with_everything_it_started(tmp_path: Path) -> None:
    """L44."""
    programs = LocalPrograms(ENVIRONMENT)
    script = "sleep 61 & echo $!; sleep 62"
    finished = programs.run(["sh", "-c", script], tmp_path, {}, 0.3)
    assert finished.exit_code is None
    child = int(finished.output)
    wait_until(lambda: start_ticks(child) is None, "the hook's child is gone")


def test_a_hook_does_not_outlive_a_killed_agent(tmp_path: Path) -> None:
    """Otherwise it would go on beside the recovery."""
    code = (
        "import os, sys; from pathlib import Path; from agent.platform.programs import LocalPrograms;"
        "LocalPrograms(dict(os.environ)).run(['sh', '-c', 'echo $$ > pid.tmp; mv pid.tmp pid;"
        " exec sleep 60'], Path(sys.argv[1]), {}, 60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as agent:
        wait_until((tmp_path / "pid").exists, "the hook runs")
        agent.send_signal(signal.SIGKILL)
    hook = int((tmp_path / "pid").read_text())
    wait_until(lambda: start_ticks(hook) is None, "the hook is gone")


@pytest.mark.parametrize("make_it", [os.mkdir, os.mkfifo])
def test_a_run_file_that_is_none_is_not_read(tmp_path: Path, unit: Unit, make_it: Callable[[Path], None]) -> None:
    manager = fresh(tmp_path)
    make_it(tmp_path / "run" / "service.json")
    assert not manager.running(unit)
    assert not manager.wanted("service")
