"""Counts requests by endpoint, status and time taken. A handful of integers, for it is done for every request."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
)  # fmt: skip
"""Seconds; upper bounds of the latency histogram."""


@dataclass(slots=True)
class Latency:
    """How many requests took how long."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """Requests up to each bound and over the one before; the last: over all bounds."""
    total: float = 0.0
    """Seconds of all requests together."""


@dataclass(slots=True)
class Requests:
    """What this process has answered since its start."""

    answered: dict[tuple[str, int], int] = field(default_factory=dict)
    """(Endpoint, status) → requests."""
    latency: dict[str, Latency] = field(default_factory=dict)
    checks: dict[str, int] = field(default_factory=dict)
    """``update`` or ``nothing`` → checks that were answered so."""
    shed: dict[str, int] = field(default_factory=dict)
    """Kind of request → requests turned away because too many were under way."""

    def count_check(self, offered: bool) -> None:
        """Count a check by what it came to."""
        outcome = "update" if offered else "nothing"
        self.checks[outcome] = self.checks.get(outcome, 0) + 1

    def count(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        key = (endpoint, status)
        answered = self.answered
        answered[key] = answered.get(key, 0) + 1
        latency = self.latency.get(endpoint)
        if latency is None:
            latency = self.latency[endpoint] = Latency()
        latency.buckets[bisect_left(BOUNDS, seconds)] += 1
        latency.total += seconds
