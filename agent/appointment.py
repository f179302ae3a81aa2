"""When the resident agent makes its next check (FR-UPD-001). Standard library only: the daemon lives on this."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

FIRST_PAUSE = 30.0
LONGEST_PAUSE = 3600.0
LATE_JITTER = 600.0
"""Seconds, but not more than the interval, within which a check that is overdue at the start, or after the machine
slept, is made: so that a fleet that is switched on does not come at once."""
FARTHEST = 25 * 3600.0
"""Seconds. A next check that is farther away was written by a clock that was wrong."""
CLOCK_MOVED = 60.0
"""Seconds by which the wall clock may leave the monotonic one before the next check is planned anew."""


class Appointment:
    """The time of the next check, by the monotonic clock: what a cycle wrote into the status, by the wall clock."""

    __slots__ = ("_clocks", "_failures", "_monotonic", "_now", "_random", "_status", "at")

    def __init__(
        self, status: Path, now: Callable[[], datetime], monotonic: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self._status = status
        self._now = now
        self._monotonic = monotonic
        self._random = random
        self._failures = 0
        self._clocks = (monotonic(), now())
        self.at = monotonic()
        """Monotonic seconds."""

    def begin(self) -> None:
        """Plan the first check: as it is noted; at once if nobody has ever checked; spread if it is overdue."""
        delay = self._until_noted()
        if delay is None:
            # Never checked: somebody waits for the first one.
            delay = 0.0
        elif delay <= 0:
            delay = self._random() * min(LATE_JITTER, self._interval())
        self.at = self._monotonic() + delay

    def is_due(self) -> bool:
        """Whether it is time; if somebody else has made the check since it was planned, it is planned anew."""
        now = self._monotonic()
        if self.at > now:
            return False
        delay = self._until_noted()
        if delay is not None and delay > 1.0:
            self.at = now + delay
        return self.at <= now

    def follow_the_clock(self) -> None:
        """Plan anew if the wall clock was set, or the machine slept: then it has gone on alone."""
        (before, wall_before), (now, wall) = self._clocks, (self._monotonic(), self._now())
        self._clocks = (now, wall)
        if abs((wall - wall_before).total_seconds() - (now - before)) > CLOCK_MOVED:
            self.begin()

    def follow_the_cycle(self) -> float | None:
        """Plan as the cycle that has just ended noted it; return ``None``, or the pause if it noted none."""
        delay = self._until_noted()
        if delay is not None and delay > 0:
            self._failures = 0
            self.at = self._monotonic() + delay
            return None
        return self.put_off()

    def put_off(self) -> float:
        """Plan the next try after a failure that no cycle could note; return the pause in seconds."""
        self._failures += 1
        delay = FIRST_PAUSE + self._random() * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
        self.at = self._monotonic() + delay
        return delay

    def _until_noted(self) -> float | None:
        """Return seconds, 0 or less when it is due; ``None`` if nobody has ever checked, or it is not known."""
        following = self._noted("next_check_time")
        if following is None:
            return None
        delay = (following - self._now()).total_seconds()
        return delay if delay <= FARTHEST else 0.0

    def _interval(self) -> float:
        """Return seconds between the last check and the planned one, as far as they are known."""
        last, following = self._noted("last_check_time"), self._noted("next_check_time")
        return LATE_JITTER if last is None or following is None else max(0.0, (following - last).total_seconds())

    def _noted(self, key: str) -> datetime | None:
        """Return a time from the status; one that is not there, or damaged, is said and mended by the next cycle."""
        try:
            moment = datetime.fromisoformat(json.loads(self._status.read_bytes())[key])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return None if moment.tzinfo is None else moment
