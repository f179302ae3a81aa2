"""The daemon on trial: a new version shows its predecessor that it starts, checks itself, and stays (FR-SUP-003).

It runs from where it was staged, in the service and the environment of the one that watches it. It is the daemon's
real loop, but its only child is ``selfcheck``, and nobody can ask it for anything: it starts no component and makes no
cycle.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.daemon import Daemon, Surroundings
from agent.platform.resident import Waiting

TRIAL_VARIABLE = "COMMANDIT_TRIAL"
"""Environment variable: a word of this trial alone, so that a program that merely ends has not passed it."""


def last_words(word: str) -> str:
    """Return the last line that a daemon says which has passed its trial."""
    return f"fit {word}"


class Trial(Daemon):
    """A daemon that ends by itself, ``seconds`` after its check."""

    def __init__(
        self, around: Surroundings, waiting: Waiting, seconds: float, more: Sequence[str], last_words: str
    ) -> None:
        """``more``: options for the check; ``last_words``: what is said when all went well."""
        super().__init__(around, waiting)
        self._seconds = seconds
        self._more = more
        self._last_words = last_words
        self._code: int | None = None
        self._until: float | None = None

    def stand(self) -> int:
        """Be a daemon for that long; return the exit code, 0 if all went well."""
        if not self.run() or self._code is None:
            return 1
        if self._code == 0:
            self._around.say(self._last_words)
        return abs(self._code)

    def _listen(self) -> None:
        # The one that watches does.
        pass

    def _start(self, *command: str) -> None:
        if command == ("recover",):
            super()._start("selfcheck", *self._more)
            if self._child is None:
                self._until = self._around.monotonic()
        else:
            self._appointment.put_off()

    def _ended(self, verb: str, code: int) -> None:
        self._around.say(f"{verb} ended with {code}")
        self._code = code
        self._until = self._around.monotonic() + (self._seconds if code == 0 else 0.0)

    def _is_succeeded(self) -> bool:
        return self._until is not None and self._until <= self._around.monotonic()

    def _patience(self) -> float:
        rest = super()._patience()
        return rest if self._until is None else max(0.0, min(rest, self._until - self._around.monotonic()))
