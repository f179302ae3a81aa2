"""Token buckets for many keys in bounded memory (NFR-SRV-009).

A bucket is one number: when it will be full again. One that is full is the same as one that was never seen, so what
has not been asked for during the time that an empty bucket takes to fill is forgotten without loss.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field

MAX_KEYS = 200_000
"""Keys of one kind that are remembered; beyond that those that were silent longest are forgotten early."""
_UNITS = {"s": 1, "m": 60, "h": 3600}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,5})([smh])")
OFF = "off"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds: at once or spread, over any length of time never faster."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """Read ``60/1m`` (units s, m, h), or ``off``: no limit; raise ``ValueError``."""
        if text == OFF:
            return None
        found = _RATE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no rate; expected COUNT/TIME such as 60/1m (units s, m, h), or {OFF}")
        return cls(int(found[1]), float(int(found[2]) * _UNITS[found[3]]))

    def shared(self, parts: int) -> Rate:
        """Return each one's share where so many count for themselves; at least one request."""
        return Rate(max(1, round(self.count / parts)), self.seconds)


@dataclass(slots=True)
class Buckets:
    """One bucket per key, each holding ``rate.count`` and filling up within ``rate.seconds``."""

    rate: Rate
    most: int = MAX_KEYS
    _full_at: dict[Hashable, float] = field(default_factory=dict)
    _before: dict[Hashable, float] = field(default_factory=dict)
    _turn_at: float = 0.0
    _cost: float = 0.0
    _room: float = 0.0

    def __post_init__(self) -> None:
        self._cost = self.rate.seconds / self.rate.count
        # A hair more than exact, so that the last of the burst is not lost to rounding.
        self._room = self.rate.seconds - self._cost * 0.999

    def take(self, key: Hashable, now: float) -> float:
        """Take one; return 0, or in how many seconds there is one again. ``now`` is a monotonic clock's."""
        full_at = self._full_at.get(key)
        if full_at is None:
            full_at = self._before.get(key, 0.0)
        if full_at <= now:
            full_at = now
        elif full_at - now > self._room:
            return full_at - now - self._room
        self._full_at[key] = full_at + self._cost
        if now >= self._turn_at or len(self._full_at) >= self.most:
            self._turn(now)
        return 0.0

    def _turn(self, now: float) -> None:
        self._before, self._full_at = self._full_at, {}
        self._turn_at = now + self.rate.seconds

    def __len__(self) -> int:
        return len(self._full_at) + len(self._before)
