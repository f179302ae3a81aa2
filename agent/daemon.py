"""The resident agent: waits for the next check or for a component's end, and starts a child for everything else.

It imports the standard library only, and little of it, so that an idle agent costs what a bare Python costs
(NFR-PER-001). It wakes up for a signal, for the end of a process, for somebody who asks for a check, and when something
is due; in between only once an hour, to see whether the machine slept or its clock was set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from agent.appointment import Appointment
from agent.platform.logcap import LogWatch
from agent.platform.resident import Child, Supervision, Waiting, trigger_of
from agent.trigger import ACCEPTED, Gate

LONGEST_WAIT = 3600.0
"""The wall clock may be set, or the machine sleep, while we wait; so we look at it now and then."""
_BUSY = 4
_CYCLES = frozenset({"once", "checknow"})


class Surroundings:
    """What the composition root gives: the state folder, what every child gets before its verb, and the functions."""

    # Plain classes in here: the module dataclasses costs more memory than all of this.
    __slots__ = ("arguments", "monotonic", "now", "random", "say", "spawn", "state", "succeeded")

    def __init__(
        self,
        state: Path,
        arguments: Sequence[str],
        *,
        spawn: Callable[[Sequence[str]], Child],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        random: Callable[[], float],
        say: Callable[[str], None],
        succeeded: Callable[[], bool],
    ) -> None:
        self.state = state
        self.arguments = arguments
        self.spawn = spawn
        self.now = now
        self.monotonic = monotonic
        self.random = random
        self.say = say
        self.succeeded = succeeded
        """Whether a newer agent lies where this one was started from."""


class Daemon:
    """The waiting loop. ``run`` returns when it is told to end, or when a self-update has put another in its place."""

    def __init__(self, around: Surroundings, waiting: Waiting) -> None:
        self._around = around
        self._waiting = waiting
        self._child: Child | None = None
        self._verb = ""
        self._end_child_at: float | None = None
        self._appointment = Appointment(around.state / "status.json", around.now, around.monotonic, around.random)
        self._supervision = Supervision(around.state / "run", around.say)
        self._logs = LogWatch(around.state / "run")
        self._logs_at: float | None = None
        self._gate = Gate()
        self._trigger = trigger_of(around.state / "run", self._asked)
        self._trigger_failure = ""
        self._peers_until: float | None = None

    def run(self) -> bool:
        """Recover, then go on until told to end.

        Return whether to become the newer agent: never in the middle of something, nor before a check somebody wants.
        """
        with self._waiting, contextlib.closing(self._trigger):
            self._start("recover")
            self._appointment.begin()
            while not (self._child is None and (self._waiting.ending or self._is_succeeded())):
                self._listen()
                self._begin_what_is_due()
                self._wait()
            return not self._waiting.ending

    def _is_succeeded(self) -> bool:
        return not self._waiting.check_now and self._around.succeeded()

    def _listen(self) -> None:
        """Listen for "update now"; what keeps us from it is said once, and it is tried again after each cycle."""
        if self._trigger.is_open or self._child is not None or self._waiting.ending:
            return
        failure = ""
        try:
            self._trigger.open()
        except OSError as error:
            failure = error.strerror or str(error)
            if failure != self._trigger_failure:
                self._around.say(f"nobody can ask for a check, see {self._around.state / 'run'}: {failure}")
        self._trigger_failure = failure

    def _asked(self, request: bytes) -> bytes:
        busy = self._waiting.check_now or (self._child is not None and self._verb in _CYCLES)
        answer = self._gate.answer(request, self._around.monotonic(), busy=busy)
        self._waiting.check_now = self._waiting.check_now or answer == ACCEPTED
        self._around.say(f"somebody asks for a check: {answer.decode().strip()}")
        return answer

    def _begin_what_is_due(self) -> None:
        if self._child is not None or self._waiting.ending:
            return
        ended = self._supervision.take_due(self._around.monotonic())
        if ended is not None:
            # Somebody may be stopping it by hand just now.
            self._start("start", "--if-wanted", ended)
        elif self._waiting.check_now:
            self._waiting.check_now = False
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
        self._waiting.wait(self._child, self._descriptors(), self._patience())
        if self._waiting.ending:
            self._end_child()
        else:
            self._peers_until = self._trigger.serve(self._around.monotonic())
        self._reap()
        if self._child is None:
            self._appointment.follow_the_clock()
            self._supervision.look(self._around.monotonic())
            self._logs_at = self._logs.trim(self._around.monotonic())

    def _descriptors(self) -> Iterator[int]:
        if self._child is None:
            yield from self._supervision.descriptors()
        if not self._waiting.ending:
            yield from self._trigger.descriptors()

    def _end_child(self) -> None:
        """Ask the child to end, once; if it may not take as long as it wants, end it then: a kill is always safe."""
        if self._child is None:
            return
        if self._end_child_at is None:
            self._child.ask_to_end()
            limit = self._waiting.child_seconds
            self._end_child_at = float("inf") if limit is None else self._around.monotonic() + limit
        elif self._around.monotonic() >= self._end_child_at:
            self._child.end()

    def _patience(self) -> float:
        """Return seconds until something is due."""
        if self._waiting.ending:
            due = [self._end_child_at]
        elif self._child is None:
            if self._waiting.check_now:
                return 0.0
            due = [self._peers_until, self._appointment.at, self._logs_at, *self._supervision.moments()]
        else:
            due = [self._peers_until]
        first = min((moment for moment in due if moment is not None), default=None)
        return LONGEST_WAIT if first is None else min(LONGEST_WAIT, max(0.0, first - self._around.monotonic()))

    def _reap(self) -> None:
        if self._child is None:
            return
        code = self._child.ended()
        if code is None:
            return
        self._child = None
        self._ended(self._verb, code)

    def _ended(self, verb: str, code: int) -> None:
        if verb in _CYCLES:
            pause = self._appointment.follow_the_cycle()
            if pause is not None and code != _BUSY:
                self._around.say(f"a cycle ended with {code} and named no next check; next in {pause:.0f} s")
