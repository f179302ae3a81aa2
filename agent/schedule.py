"""When the next check is: PURE, and the small file that remembers failed ones (FR-UPD-001, NFR-REL-001)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent import durable
from agent.backoff import LONGEST_RETRY_AFTER, full_jitter

DEFAULT_INTERVAL = 14_400
SHORTEST = 30.0
LONGEST = 24 * 3600.0
JITTER = 0.1
"""Share of the interval by which it varies, so that a fleet does not come at once."""


def after_answer(configured: int, server: int, random: Callable[[], float]) -> float:
    """Return seconds to the next check: what the configuration says, or else the server, within 30 s and 24 h.

    A server that says 0 or less says nothing.
    """
    said = min(server, LONGEST) if server > 0 else DEFAULT_INTERVAL
    wanted = float(said if configured == DEFAULT_INTERVAL else configured)
    return min(LONGEST, max(SHORTEST, spread(wanted, random)))


def spread(seconds: float, random: Callable[[], float]) -> float:
    """Return a time that varies by ``JITTER``."""
    return seconds * (1 + JITTER * (2 * random() - 1))


def after_failure(failures: int, interval: float, retry_after: float | None, random: Callable[[], float]) -> float:
    """Return seconds to the next try: full jitter that doubles per failure in a row, never before ``retry_after``."""
    pause = max(SHORTEST / 6, full_jitter(failures, SHORTEST, min(interval, LONGEST), random))
    return pause if retry_after is None else max(pause, min(retry_after, LONGEST_RETRY_AFTER))


def load_failures(path: Path) -> int:
    """Return how many checks failed in a row; an unreadable file counts as none, which costs one early check."""
    count = (durable.load(path, fall_back=False).payload or {}).get("failures", 0)
    return count if isinstance(count, int) and count >= 0 else 0


def save_failures(path: Path, failures: int) -> None:
    """Remember it; raise ``LocalFailure``."""
    if load_failures(path) != failures:
        durable.save(path, {"failures": failures}, keep_previous=False)
