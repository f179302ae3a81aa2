"""Programs of users' sessions are ended before they are replaced, and nothing else is (FR-CMP-007, FR-CMP-001)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.endpoints import wait_until
from support.managers import RealClock

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.proc import running_from
from agent.platform.sessionprograms import SessionPrograms
from agent.ports import Unit
from repo_server.core.package import Service, ServiceKind

Start = Callable[..., subprocess.Popen[bytes]]
SLEEP = shutil.which("sleep") or "/bin/sleep"
SCRIPT = "#!/bin/sh\ntrap 'echo ended >{folder}/said; exit' TERM\n: >{folder}/ready\nwhile :; do sleep 0.05; done\n"
DEAF = "#!/bin/sh\ntrap '' TERM\n: >{folder}/ready\nwhile :; do sleep 0.05; done\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ui"
    (folder / "bin").mkdir(parents=True)
    return folder


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: str | Path) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
        return started[-1]

    yield run
    for one in started:
        one.kill()
        one.communicate()


def unit(folder: Path, *, session: bool = True, seconds: float = 30.0) -> Unit:
    return Unit("ui", folder, Service(ServiceKind.NONE, stop_timeout_seconds=seconds, session=session))


def program(folder: Path, text: str) -> Path:
    path = folder / "bin" / "app"
    path.write_text(text.format(folder=folder))
    path.chmod(0o755)
    return path


def test_a_program_from_the_folder_ends_and_one_from_elsewhere_goes_on(folder: Path, start: Start) -> None:
    """Whoever started it; an editor that has a file of the component open is no program of it."""
    shutil.copy(SLEEP, folder / "bin" / "app")
    script = folder / "bin" / "notes"
    script.write_text("#!/bin/sh\nimport time; time.sleep(3600)\n")
    ours, other = start(folder / "bin" / "app", "3600"), start(SLEEP, "3600")
    editor = start(sys.executable, script)
    wait_until(lambda: [pid for pid, _ in running_from(folder)] == [ours.pid], "it runs")
    manager = SessionPrograms(RealClock())
    assert manager.running(unit(folder))
    manager.stop(unit(folder))
    assert ours.wait(10) == -15
    assert (other.poll(), editor.poll()) == (None, None)
    assert not manager.running(unit(folder))
    manager.stop(unit(folder))


def test_a_script_is_found_by_its_interpreter_and_may_end_gracefully(folder: Path, start: Start) -> None:
    ours = start(program(folder, SCRIPT))
    wait_until((folder / "ready").exists, "it runs")
    SessionPrograms(RealClock()).stop(unit(folder))
    assert ours.wait(10) == 0
    assert (folder / "said").read_text() == "ended\n"


def test_one_that_does_not_listen_is_killed_after_its_time(folder: Path, start: Start) -> None:
    ours = start(program(folder, DEAF))
    wait_until((folder / "ready").exists, "it runs")
    SessionPrograms(RealClock()).stop(unit(folder, seconds=0.2))
    assert ours.wait(10) == -9


def test_what_is_no_sessions_is_left_alone(folder: Path, start: Start) -> None:
    shutil.copy(SLEEP, folder / "bin" / "app")
    ours = start(folder / "bin" / "app", "3600")
    wait_until(lambda: running_from(folder), "it runs")
    SessionPrograms(RealClock()).stop(unit(folder, session=False))
    assert ours.poll() is None


def test_what_survives_even_force_fails_the_stop(folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """EH-CLI-004: it is said, and never taken for stopped."""
    shutil.copy(SLEEP, folder / "bin" / "app")
    start(folder / "bin" / "app", "3600")
    wait_until(lambda: running_from(folder), "it runs")
    monkeypatch.setattr("agent.platform.sessionprograms.end_process", lambda *_: None)
    monkeypatch.setattr("agent.platform.sessionprograms.FORCE_SECONDS", 0.1)
    with pytest.raises(AgentError, match="1 programs of users' sessions are not stopped") as caught:
        SessionPrograms(RealClock()).stop(unit(folder, seconds=0.1))
    assert caught.value.code is Code.STOP_FAILED
