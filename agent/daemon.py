"""The resident agent: waits for the next check or for a component's end, and starts a child for everything else.

It imports the standard library only, and little of it, so that an idle agent costs what a bare Python costs
(NFR-PER-001). It wakes up for a signal, for the end of a process, for somebody who asks for a check, and when something
is due; in between only once an hour, to see whether the machine slept or its clock was set.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from agent.appointment import Appointment
from agent.platform.logcap import LogWatch
from agent.platform.proc import boot_id, start_ticks
from agent.platform.runfile import read_run_files
from agent.platform.triggersocket import TriggerSocket
from agent.trigger import ACCEPTED, SOCKET, Gate

FIRST_RESTART = 1.0
LONGEST_RESTART = 300.0
STABLE_AFTER = 120.0
"""A program that ran this long is started again without delay."""
FIRST_LOOK = 5.0
LONGEST_LOOK = 1200.0
LONGEST_WAIT = 3600.0
"""The wall clock may be set, or the machine sleep, while we wait; so we look at it now and then."""
_BUSY = 4
_CYCLES = frozenset({"once", "checknow"})


class Surroundings:
    """What the composition root gives: the state folder, what every child gets before its verb, and the functions."""

    # Plain classes in here: the module dataclasses costs more memory than all of this.
    __slots__ = ("arguments", "monotonic", "now", "random", "say", "spawn", "state")

    def __init__(
        self,
        state: Path,
        arguments: Sequence[str],
        *,
        spawn: Callable[[Sequence[str]], int],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        random: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self.state = state
        self.arguments = arguments
        self.spawn = spawn
        self.now = now
        self.monotonic = monotonic
        self.random = random
        self.say = say


class _Program:
    """A component's program that should run."""

    __slots__ = ("deaths", "due", "pid", "pidfd", "since")

    def __init__(self, since: float) -> None:
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.since = since
        self.deaths = 0
        self.due: float | None = None


class Daemon:
    """The waiting loop. ``run`` returns when a signal says so."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._child: int | None = None
        self._verb = ""
        self._ending = False
        self._check_now = False
        self._appointment = Appointment(around.state / "status.json", around.now, around.monotonic, around.random)
        self._programs: dict[str, _Program] = {}
        self._wake = -1
        self._look_at: float | None = None
        self._look_pause = 0.0
        self._logs = LogWatch(around.state / "run")
        self._logs_at: float | None = None
        self._gate = Gate()
        self._trigger = TriggerSocket(around.state / "run" / SOCKET, {0, os.geteuid()}, self._asked)
        self._trigger_failure = ""
        self._peers_until: float | None = None

    def run(self) -> None:
        """Recover, then go on until SIGTERM or SIGINT; SIGHUP means: check now."""
        with self._signals(), contextlib.closing(self._trigger):
            self._start("recover")
            self._appointment.begin()
            while not (self._ending and self._child is None):
                self._listen()
                self._begin_what_is_due()
                self._wait()

    def _listen(self) -> None:
        """Listen for "update now"; what keeps us from it is said once, and it is tried again after each cycle."""
        if self._trigger.is_open or self._child is not None or self._ending:
            return
        failure = ""
        try:
            self._trigger.open()
        except OSError as error:
            failure = error.strerror or str(error)
            if failure != self._trigger_failure:
                self._around.say(f"nobody can ask for a check at {self._around.state / 'run' / SOCKET}: {failure}")
        self._trigger_failure = failure

    def _asked(self, request: bytes) -> bytes:
        busy = self._check_now or (self._child is not None and self._verb in _CYCLES)
        answer = self._gate.answer(request, self._around.monotonic(), busy=busy)
        self._check_now = self._check_now or answer == ACCEPTED
        self._around.say(f"somebody asks for a check: {answer.decode().strip()}")
        return answer

    def _begin_what_is_due(self) -> None:
        if self._child is not None or self._ending:
            return
        now = self._around.monotonic()
        for name, program in self._programs.items():
            if program.due is not None and program.due <= now:
                program.due = None
                self._start("start", name)
                return
        if self._check_now:
            self._check_now = False
            self._start("checknow")
        elif self._appointment.is_due():
            self._start("once")

    def _start(self, *command: str) -> None:
        try:
            self._child = self._around.spawn([*self._around.arguments, *command])
            self._verb = command[0]
        except OSError as error:
            self._around.say(f"cannot start {command[0]}: {error.strerror}; it is tried again")
            self._appointment.put_off()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self._child is None:
            for program in self._programs.values():
                if program.pidfd is not None:
                    poll.register(program.pidfd, select.POLLIN)
        for descriptor in () if self._ending else self._trigger.descriptors():
            poll.register(descriptor, select.POLLIN)
        poll.poll(self._patience() * 1000)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 64):
                pass
        if not self._ending:
            self._peers_until = self._trigger.serve(self._around.monotonic())
        self._reap()
        if self._child is None:
            self._appointment.follow_the_clock()
            self._look_at_programs()
            self._logs_at = self._logs.trim(self._around.monotonic())

    def _patience(self) -> float:
        """Return seconds until something is due."""
        if self._ending:
            return LONGEST_WAIT
        due = [self._peers_until]
        if self._child is None:
            if self._check_now:
                return 0.0
            due += [self._appointment.at, self._look_at, self._logs_at]
            due += [program.due for program in self._programs.values()]
        first = min((moment for moment in due if moment is not None), default=None)
        return LONGEST_WAIT if first is None else min(LONGEST_WAIT, max(0.0, first - self._around.monotonic()))

    def _reap(self) -> None:
        if self._child is None:
            return
        pid, status = os.waitpid(self._child, os.WNOHANG)
        if pid == 0:
            return
        verb, self._child = self._verb, None
        if verb in _CYCLES:
            pause, code = self._appointment.follow_the_cycle(), os.waitstatus_to_exitcode(status)
            if pause is not None and code != _BUSY:
                self._around.say(f"a cycle ended with {code} and named no next check; next in {pause:.0f} s")

    def _look_at_programs(self) -> None:
        """Watch every program that should run; plan the restart of those that ended."""
        boot, seen = boot_id(), set()
        now = self._around.monotonic()
        for state in read_run_files(self._around.state / "run"):
            seen.add(state.component)
            program = self._programs.setdefault(state.component, _Program(now))
            ticks = None if state.pid is None or state.boot != boot else start_ticks(state.pid)
            alive = ticks is not None and ticks == state.ticks
            if alive and program.pid == state.pid and program.pidfd is not None:
                continue
            self._forget_process(program)
            if alive and state.pid is not None:
                self._watch(program, state.pid, now)
            elif program.due is None:
                self._plan_restart(state.component, program, now)
        missing = set(self._programs) - seen
        for gone in missing:
            self._forget_process(self._programs.pop(gone))
        self._plan_look(now, missing=bool(missing))

    def _plan_look(self, now: float, *, missing: bool) -> None:
        """Look again after a while: a program that was stopped by somebody else's update comes back as another."""
        if missing:
            self._look_pause = FIRST_LOOK
        elif self._look_at is not None and self._look_at <= now:
            self._look_pause *= 2
        else:
            return
        self._look_at = now + self._look_pause if self._look_pause <= LONGEST_LOOK else None

    def _watch(self, program: _Program, pid: int, now: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            program.pidfd = os.pidfd_open(pid)
            program.pid, program.since, program.due = pid, now, None

    def _plan_restart(self, name: str, program: _Program, now: float) -> None:
        program.deaths = 0 if now - program.since > STABLE_AFTER else program.deaths + 1
        delay = 0.0 if program.deaths == 0 else min(LONGEST_RESTART, FIRST_RESTART * 2.0 ** min(program.deaths - 1, 10))
        program.due = now + delay
        self._around.say(f"{name} has ended, or its run file is damaged; it is started again in {delay:.0f} s")

    def _forget_process(self, program: _Program) -> None:
        if program.pidfd is not None:
            os.close(program.pidfd)
        program.pid = program.pidfd = None

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = read
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        }
        old_descriptor = signal.set_wakeup_fd(write)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(read)
            os.close(write)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._check_now = True
        elif number in {signal.SIGTERM, signal.SIGINT}:
            self._ending = True
            if self._child is not None:
                # It turns back where it can, and finishes what it must; a kill would be safe as well.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._child, signal.SIGTERM)


def run_daemon(
    root_dir: str,
    spawn: Callable[[Sequence[str]], int],
    *,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    random: Callable[[], float],
    say: Callable[[str], None],
) -> int:
    """Run until told to end; return the exit code."""
    state = Path(root_dir) / "var" / "lib" / "commandit"
    arguments = ("--root-dir", root_dir)
    around = Surroundings(state, arguments, spawn=spawn, now=now, monotonic=monotonic, random=random, say=say)
    Daemon(around).run()
    return 0
