"""When the next check is: PURE, and the small file that remembers failed ones (FR-UPD-001, NFR-REL-001)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

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


@dataclass(frozen=True, slots=True)
class Remembered:
    """What of the past counts for the next tries: the state file ``schedule.json``."""

    failures: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many checks failed in a row."""
    reports_after: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    """When the server wants to be sent reports again, if it named a time."""


def may_report(remembered: Remembered, now: datetime) -> bool:
    """Whether reports may be sent; a time that no right clock can have written is not heeded."""
    return remembered.reports_after is None or not 0 < (remembered.reports_after - now).total_seconds() <= LONGEST


def load_remembered(path: Path) -> Remembered:
    """Return what is remembered; an unreadable file is as none, which costs one early check."""
    try:
        return msgspec.convert(durable.load(path, fall_back=False).payload or {}, Remembered)
    except msgspec.ValidationError:
        return Remembered()


def save_remembered(path: Path, remembered: Remembered) -> None:
    """Remember it; raise ``LocalFailure``."""
    if load_remembered(path) != remembered:
        plain: dict[str, Any] = msgspec.to_builtins(remembered)
        durable.save(path, plain, keep_previous=False)
