"""Which of the components' programs should run, and when those that ended are started again (FR-CMP-004).

Standard library only: the daemon lives on this. Linux, where components may be plain processes of ours; launchd and
the service manager of Windows start theirs again themselves (``unsupervised.py``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.platform.proc import boot_id, pidfd_of, start_ticks
from agent.platform.runfile import read_run_files

FIRST_RESTART = 1.0
LONGEST_RESTART = 300.0
STABLE_AFTER = 120.0
"""A program that ran this long is started again without delay."""
FIRST_LOOK = 5.0
LONGEST_LOOK = 1200.0


class _Program:
    """A component's program that should run."""

    # Plain classes in here: the module dataclasses costs more memory than all of this.
    __slots__ = ("deaths", "due", "pid", "pidfd", "since")

    def __init__(self, since: float) -> None:
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.since = since
        self.deaths = 0
        self.due: float | None = None


class Supervision:
    """Knows the programs of a run folder. Times are monotonic seconds."""

    __slots__ = ("_look_at", "_look_pause", "_programs", "_run_folder", "_say")

    def __init__(self, run_folder: Path, say: Callable[[str], None]) -> None:
        self._run_folder = run_folder
        self._say = say
        self._programs: dict[str, _Program] = {}
        self._look_at: float | None = None
        self._look_pause = 0.0

    def look(self, now: float) -> None:
        """Watch every program that should run; plan the restart of those that ended."""
        boot, seen = boot_id(), set()
        for state in read_run_files(self._run_folder):
            seen.add(state.component)
            program = self._programs.setdefault(state.component, _Program(now))
            ticks = None if state.pid is None or state.boot != boot else start_ticks(state.pid)
            alive = ticks is not None and ticks == state.ticks
            if alive and program.pid == state.pid and program.pidfd is not None:
                continue
            _forget_process(program)
            if alive and state.pid is not None:
                _watch(program, state.pid, now)
            elif program.due is None:
                self._plan_restart(state.component, program, now)
        missing = set(self._programs) - seen
        for gone in missing:
            _forget_process(self._programs.pop(gone))
        self._plan_look(now, missing=bool(missing))

    def take_due(self, now: float) -> str | None:
        """Return a component that is to be started now, once."""
        for name, program in self._programs.items():
            if program.due is not None and program.due <= now:
                program.due = None
                return name
        return None

    def descriptors(self) -> Iterator[int]:
        """Yield what becomes readable when a program ends."""
        for program in self._programs.values():
            if program.pidfd is not None:
                yield program.pidfd

    def moments(self) -> Iterator[float | None]:
        """Yield when there is something to do."""
        yield self._look_at
        for program in self._programs.values():
            yield program.due

    def _plan_look(self, now: float, *, missing: bool) -> None:
        """Look again after a while: a program that was stopped by somebody else's update comes back as another."""
        if missing:
            self._look_pause = FIRST_LOOK
        elif self._look_at is not None and self._look_at <= now:
            self._look_pause *= 2
        else:
            return
        self._look_at = now + self._look_pause if self._look_pause <= LONGEST_LOOK else None

    def _plan_restart(self, name: str, program: _Program, now: float) -> None:
        program.deaths = 0 if now - program.since > STABLE_AFTER else program.deaths + 1
        delay = 0.0 if program.deaths == 0 else min(LONGEST_RESTART, FIRST_RESTART * 2.0 ** min(program.deaths - 1, 10))
        program.due = now + delay
        self._say(f"{name} has ended, or its run file is damaged; it is started again in {delay:.0f} s")


def _watch(program: _Program, pid: int, now: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        program.pidfd = pidfd_of(pid)
        program.pid, program.since, program.due = pid, now, None


def _forget_process(program: _Program) -> None:
    if program.pidfd is not None:
        os.close(program.pidfd)
    program.pid = program.pidfd = None
