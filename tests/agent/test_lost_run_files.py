"""A component whose run file was damaged or lost is found all the same, and nobody else's process (FR-CMP-001)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from support.endpoints import wait_until

from agent.platform.proc import start_ticks
from agent.platform.process import Launch, ProcessManager
from agent.platform.runfile import read_run_files
from agent.ports import Unit
from repo_server.core.package import Service, ServiceKind

ENVIRONMENT = {"PATH": os.environ["PATH"]}
SLEEPER = "#!/bin/sh\nwhile :; do sleep 60 & wait $!; done\n"
WITH_HELPER = """\
#!{python} -IS
import os, time
if os.fork() == 0:
    os.setsid()
    with open("helper.tmp", "w") as file:
        file.write(str(os.getpid()))
    os.rename("helper.tmp", "helper")
time.sleep(60)
"""


class Place:
    """An endpoint's run folder and one component."""

    def __init__(self, folder: Path, program: str = SLEEPER) -> None:
        self.run, install = folder / "run", folder / "opt"
        self.run.mkdir(parents=True)
        (install / "bin").mkdir(parents=True)
        self.unit = Unit("service", install, Service(ServiceKind.PROCESS, None, ("bin/serve",), 5.0))
        self.program(program)
        self.managers: list[ProcessManager] = []

    def program(self, text: str) -> None:
        new = self.unit.folder / "bin" / "new"
        new.write_text(text)
        new.chmod(0o755)
        new.rename(self.unit.folder / "bin" / "serve")

    @property
    def file(self) -> Path:
        return self.run / "service.json"

    def pid(self) -> int:
        return int(json.loads(self.file.read_text())["pid"])

    def fresh(self) -> ProcessManager:
        """Return what the next process of the agent would work with."""
        self.managers.append(ProcessManager(self.run, Launch(ENVIRONMENT, lambda: str(uuid.uuid4()))))
        return self.managers[-1]

    def end(self) -> None:
        self.fresh().stop(self.unit)
        # Each reaps the children of its own.
        for manager in self.managers:
            manager.running(self.unit)

    def started(self) -> int:
        """Start the component; return its process id once it is the program and no longer the agent's fork."""
        self.fresh().start(self.unit)
        pid = self.pid()
        wait_until(lambda: b"bin/serve" in Path(f"/proc/{pid}/cmdline").read_bytes(), "it runs")
        return pid


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def garbled(file: Path) -> None:
    file.write_text("[" * 20_000)


def removed(file: Path) -> None:
    file.unlink()


DAMAGES = [zeroed, emptied, garbled, removed]


Make = Callable[..., Place]


@pytest.fixture
def make() -> Iterator[Make]:
    places: list[Place] = []

    def make(folder: Path, program: str = SLEEPER) -> Place:
        places.append(Place(folder, program))
        return places[-1]

    yield make
    for place in places:
        place.end()


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_running_program_is_adopted(make: Make, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    place = make(tmp_path)
    pid = place.started()
    damage(place.file)
    manager = place.fresh()
    assert manager.wanted("service")
    assert manager.running(place.unit)
    manager.start(place.unit)
    assert place.pid() == pid, "it has its run file again, and was not started beside itself"
    assert start_ticks(pid) is not None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("program", [SLEEPER, WITH_HELPER.format(python=sys.executable)])
def test_a_stop_ends_all_of_it(make: Make, tmp_path: Path, damage: Callable[[Path], None], program: str) -> None:
    place = make(tmp_path, program)
    pid = place.started()
    pids = [pid]
    if program != SLEEPER:
        wait_until((place.unit.folder / "helper").exists, "its helper runs")
        pids.append(int((place.unit.folder / "helper").read_text()))
    damage(place.file)
    manager = place.fresh()
    manager.stop(place.unit)
    assert [start_ticks(pid) for pid in pids] == [None] * len(pids)
    assert not manager.running(place.unit)
    assert not manager.wanted("service")


def test_what_is_not_beyond_doubt_what_should_run_ends_before_the_next_start(make: Make, tmp_path: Path) -> None:
    """From another folder: the version before."""
    place = make(tmp_path)
    old = place.started()
    place.unit.folder.rename(tmp_path / "old")
    (place.unit.folder / "bin").mkdir(parents=True)
    place.program(SLEEPER)
    zeroed(place.file)
    manager = place.fresh()
    assert not manager.running(place.unit)
    manager.start(place.unit)
    assert start_ticks(old) is None
    assert manager.running(place.unit)


def test_a_second_launch_that_a_lost_file_led_to_ends_with_the_first(make: Make, tmp_path: Path) -> None:
    place = make(tmp_path)
    first = place.started()
    kept = tmp_path / "kept"
    place.file.rename(kept)
    environment = {**ENVIRONMENT, **environment_of(first), "COMMANDIT_LAUNCH": "another"}
    with subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True) as second:
        kept.rename(place.file)
        place.fresh().stop(place.unit)
        assert start_ticks(first) is None
        assert second.wait(10) != 0


def test_a_damaged_file_of_a_program_that_is_gone_says_that_it_should_run(make: Make, tmp_path: Path) -> None:
    place = make(tmp_path)
    place.started()
    place.fresh().stop(place.unit)
    place.file.write_bytes(bytes(100))
    manager = place.fresh()
    assert manager.wanted("service")
    assert not manager.running(place.unit)
    (launch,) = read_run_files(place.run)
    assert (launch.component, launch.pid) == ("service", None), "the daemon starts it again"
    manager.start(place.unit)
    assert manager.running(place.unit)


def environment_of(pid: int) -> Mapping[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair.startswith("COMMANDIT_"))


def test_the_same_component_of_another_endpoint_is_left_alone(make: Make, tmp_path: Path) -> None:
    ours, theirs = make(tmp_path / "ours"), make(tmp_path / "theirs")
    pid = theirs.started()
    theirs.file.unlink()
    manager = ours.fresh()
    assert not manager.wanted("service")
    assert not manager.running(ours.unit)
    manager.stop(ours.unit)
    assert start_ticks(pid) is not None


@pytest.mark.parametrize("named", [True, False])
def test_an_endpoint_is_the_same_however_it_is_named(make: Make, tmp_path: Path, named: bool) -> None:
    place = make(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    pid = place.started()
    other = ProcessManager(tmp_path / "link" / "run", Launch(ENVIRONMENT, lambda: str(uuid.uuid4())))
    if not named:
        place.file.unlink()
    other.stop(place.unit)
    assert start_ticks(pid) is None


def test_a_process_that_is_no_component_is_left_alone(make: Make, tmp_path: Path) -> None:
    """Health commands and hooks get the component's name as well; and its folder is open to everybody."""
    place = make(tmp_path)
    environment = {**ENVIRONMENT, "COMMANDIT_COMPONENT": "service", "COMMANDIT_RUN": "x"}
    with subprocess.Popen(["sleep", "60"], env=environment, cwd=place.unit.folder, start_new_session=True) as stranger:
        manager = place.fresh()
        assert not manager.wanted("service")
        manager.stop(place.unit)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.root
def test_the_same_path_in_another_root_is_another_endpoint(make: Make, tmp_path: Path) -> None:
    """A container's processes are seen by its host."""
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    place = make(tmp_path)
    inside = {**ENVIRONMENT, "COMMANDIT_COMPONENT": "service", "COMMANDIT_LAUNCH": "x"}
    inside["COMMANDIT_RUN_FILE"] = str(place.file)
    code = f"import os, time; os.chroot({str(tmp_path)!r}); print('in', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=inside, start_new_session=True, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        manager = place.fresh()
        assert not manager.wanted("service")
        manager.stop(place.unit)
        time.sleep(0.1)
        assert stranger.poll() is None
        stranger.kill()
