"""Components as plain child processes: each in its own session, found again after any crash (FR-CMP-001, FR-CMP-004).

``run/<component>.json`` is written before the program is started, with a token that the program gets in its
environment, and again with its pid and start time. So a program is found even if the agent died while starting it,
and a process id that was given to somebody else is never touched. A component leads its own session; what it starts
is stopped with it, also what left that session: all of it carries the token.

The environment names the run file as well. So what a component runs is found when that file is damaged or gone, and
nothing of another endpoint is touched: its path is another one, and in a container or chroot it is not ours.
"""

from __future__ import annotations

import sys

if not sys.platform.startswith("linux"):
    raise ImportError(f"these are processes as Linux shows them; expected another adapter on {sys.platform}")

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent.codes import Code
from agent.durable import replace_file
from agent.errors import AgentError, LocalFailure
from agent.platform.files import FILES
from agent.platform.logcap import trim_log
from agent.platform.proc import (
    boot_id,
    group_of,
    holders_of,
    is_here,
    leaders_with,
    runs_command,
    start_ticks,
    variable_of,
    wait_gone,
)
from agent.platform.runfile import RunFile, read_run_file
from agent.platform.spoken import resolve, tail
from agent.ports import Unit

TOKEN_VARIABLE = "COMMANDIT_LAUNCH"  # noqa: S105 -- a variable's name
COMPONENT_VARIABLE = "COMMANDIT_COMPONENT"
RUN_FILE_VARIABLE = "COMMANDIT_RUN_FILE"
FORCE_SECONDS = 10.0
"""How long the kernel may take to end a killed process before stopping counts as failed."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a program gets from us."""

    environment: Mapping[str, str]
    new_token: Callable[[], str]
    """Unguessable and unique."""


class ProcessManager:
    """The ``ServiceManager`` port for ``service.kind = "process"``."""

    def __init__(self, run_folder: Path, launch: Launch) -> None:
        self._folder = run_folder
        self._launch = launch
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._said_before: dict[str, int] = {}
        """How long each log was when we started its program."""

    def start(self, unit: Unit) -> None:
        """Start the program detached, with its output in ``run/<component>.log``."""
        if self.running(unit):
            return
        # It died, and what it started may still hold its port; or its file was lost, and it is not what should run.
        before = read_run_file(self._path(unit.component))
        deadline = time.monotonic() + unit.service.stop_timeout_seconds
        self._stop_rest(unit, before, None if before is None else before.pid, deadline)
        token = self._launch.new_token()
        launched = RunFile(unit.component, token, boot_id())
        self._write(launched)
        command = resolve(unit.service.command, unit.folder)
        environment = {
            **self._launch.environment,
            COMPONENT_VARIABLE: unit.component,
            TOKEN_VARIABLE: token,
            RUN_FILE_VARIABLE: self._name(unit.component),
        }
        try:
            with self._open_log(unit.component) as log:
                child = subprocess.Popen(  # noqa: S603 -- the command of a package that release keys signed
                    command, cwd=unit.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, umask=0o022,
                )  # fmt: skip
        except OSError as error:
            raise AgentError(
                Code.START_FAILED,
                f"{unit.component}: cannot start {command[0]}: {error.strerror}; expected an executable program "
                f"in {unit.folder}",
            ) from error
        self._children[child.pid] = child
        self._write(RunFile(unit.component, token, launched.boot, child.pid, start_ticks(child.pid)))

    def stop(self, unit: Unit) -> None:
        """SIGTERM to the group, wait, SIGKILL to what is left; then forget it."""
        self._reap()
        state = read_run_file(self._path(unit.component)) or self._adopted(unit)
        deadline = time.monotonic() + unit.service.stop_timeout_seconds
        pid = None if state is None else self._alive(state)
        if pid is not None:
            ticks = start_ticks(pid)
            _signal(unit.component, os.killpg, pid, signal.SIGTERM)
            self._ask_strays(unit, state, pid)
            if ticks is not None and not wait_gone(pid, ticks, unit.service.stop_timeout_seconds):
                _signal(unit.component, os.killpg, pid, signal.SIGKILL)
                if not wait_gone(pid, ticks, FORCE_SECONDS):
                    raise AgentError(
                        Code.STOP_FAILED,
                        f"{unit.component}: process {pid} is still there {FORCE_SECONDS:.0f} s after SIGKILL; "
                        "it hangs in the kernel, see its state with ps",
                    )
        self._stop_rest(unit, state, pid or (None if state is None else state.pid), deadline)
        self._reap()
        with contextlib.suppress(IsADirectoryError):
            self._path(unit.component).unlink(missing_ok=True)

    def remove(self, unit: Unit) -> None:
        """Stop it; nothing of it stays."""
        self.stop(unit)

    def running(self, unit: Unit) -> bool:
        """Whether the program that was started last is alive; if its run file was lost, it gets another."""
        self._reap()
        state = read_run_file(self._path(unit.component)) or self._adopted(unit)
        return state is not None and self._alive(state) is not None

    def wanted(self, component: str) -> bool:
        """Whether it was started and not stopped since."""
        return self._path(component).is_file() or bool(self._leaders(component))

    def last_output(self, component: str) -> str:
        """Return the end of its log; not what was said before the launch that is ours."""
        return tail(self._log_path(component), self._said_before.get(component, 0))

    def _alive(self, state: RunFile) -> int | None:
        """Return the process id of a launch if that very process is alive."""
        if state.boot != boot_id():
            return None
        if state.pid is None:
            # The agent was killed between starting the program and noting its id.
            return next(iter(leaders_with(_marker(state))), None)
        return state.pid if state.ticks is not None and start_ticks(state.pid) == state.ticks else None

    def _leaders(self, component: str) -> list[int]:
        """Return the session leaders that a component has, whatever its run file says, oldest first."""
        return [pid for pid in leaders_with(self._run_marker(component)) if is_here(pid)]

    def _adopted(self, unit: Unit) -> RunFile | None:
        """Return the launch of a program whose run file was lost, if it is beyond doubt what should run."""
        leaders = self._leaders(unit.component)
        if not (leaders and unit.service.command):
            return None
        tokens = {variable_of(pid, TOKEN_VARIABLE) for pid in leaders}
        command = resolve(unit.service.command, unit.folder)
        # From another folder it is another version; what its program started may lead a session of its own.
        pid = next((pid for pid in leaders if runs_command(pid, unit.folder, command)), None)
        token = tokens.pop() if len(tokens) == 1 else None
        if pid is None or token is None:
            return None
        state = RunFile(unit.component, token, boot_id(), pid, start_ticks(pid))
        # If the disk is full, it is found again the next time.
        with contextlib.suppress(LocalFailure):
            self._write(state)
        return state

    def _members(self, unit: Unit, state: RunFile | None, leader: int | None) -> set[int]:
        """Return every process of a component, of this launch and of any other."""
        found = {pid for pid in holders_of(self._run_marker(unit.component), leader) if is_here(pid)}
        return found if state is None else found.union(holders_of(_marker(state), leader))

    def _stop_rest(self, unit: Unit, state: RunFile | None, leader: int | None, deadline: float) -> None:
        """End what the program started and left behind, and what runs beside it."""
        if leader is None or state is None or self._alive(state) is None:
            self._ask_strays(unit, state, None)
        # Again, for one that was just listed may have started another.
        while members := self._members(unit, state, leader):
            for member in members:
                self._end(unit.component, member, deadline)

    def _ask_strays(self, unit: Unit, state: RunFile | None, leader: int | None) -> None:
        """SIGTERM to what is in no group that was asked."""
        for member in self._members(unit, state, leader):
            if leader is None or group_of(member) != leader:
                _signal(unit.component, os.kill, member, signal.SIGTERM)

    def _end(self, component: str, member: int, deadline: float) -> None:
        ticks = start_ticks(member)
        if ticks is None or wait_gone(member, ticks, deadline - time.monotonic()):
            return
        _signal(component, os.kill, member, signal.SIGKILL)
        if not wait_gone(member, ticks, FORCE_SECONDS):
            raise AgentError(Code.STOP_FAILED, f"{component}: process {member} is still there after SIGKILL")

    def _reap(self) -> None:
        self._children = {pid: child for pid, child in self._children.items() if child.poll() is None}

    def _open_log(self, component: str) -> BinaryIO:
        path = self._log_path(component)
        with contextlib.suppress(FileNotFoundError):
            trim_log(path)
        log = os.fdopen(FILES.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")
        self._said_before[component] = os.fstat(log.fileno()).st_size
        return log

    def _write(self, state: RunFile) -> None:
        replace_file(self._path(state.component), json.dumps(state.to_json()).encode())

    def _name(self, component: str) -> str:
        """Return the run file's path as processes carry it: the same however this endpoint was named."""
        return str(self._path(component).parent.resolve() / self._path(component).name)

    def _run_marker(self, component: str) -> bytes:
        return os.fsencode(f"{RUN_FILE_VARIABLE}={self._name(component)}")

    def _path(self, component: str) -> Path:
        return self._folder / f"{component}.json"

    def _log_path(self, component: str) -> Path:
        return self._folder / f"{component}.log"


def _marker(state: RunFile) -> bytes:
    return f"{TOKEN_VARIABLE}={state.token}".encode()


def _signal(component: str, send: Callable[[int, int], None], target: int, number: signal.Signals) -> None:
    """Signal a process or group that may have ended; raise ``AgentError(STOP_FAILED)`` if the system forbids it."""
    try:
        send(target, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise AgentError(
            Code.STOP_FAILED,
            f"{component}: process {target} is another user's, and {number.name} for it is forbidden; run this as root",
        ) from error
