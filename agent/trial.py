"""The daemon on trial: a new version shows its predecessor that it starts, checks itself, and stays (FR-SUP-003).

It runs from where it was staged, in the service and the environment of the one that watches it. It is the daemon's
real loop, with ``selfcheck`` as its only child: it starts no component and makes no cycle.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.daemon import LONGEST_WAIT, Daemon, Surroundings
from agent.platform.resident import Waiting


class Trial(Daemon):
    """A daemon that ends by itself."""

    def __init__(self, around: Surroundings, waiting: Waiting) -> None:
        super().__init__(around, waiting)
        self._code: int | None = None
        self._until = 0.0

    def stand(self, selfcheck: Sequence[str], seconds: float) -> int:
        """Run the check in a child, then stay for some seconds; return the exit code, 0 if all went well."""
        with self._waiting:
            self._start(*selfcheck)
            while self._child is not None:
                self._wait()
            self._until = self._around.monotonic() + seconds
            while self._code == 0 and not self._waiting.ending and self._until > self._around.monotonic():
                self._wait()
        return 1 if self._code is None or self._waiting.ending else abs(self._code)

    def _ended(self, verb: str, code: int) -> None:
        self._around.say(f"{verb} ended with {code}")
        self._code = code

    def _patience(self) -> float:
        return LONGEST_WAIT if self._child is not None else max(0.0, self._until - self._around.monotonic())
