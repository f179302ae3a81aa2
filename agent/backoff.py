"""How long to wait: full jitter after failures, and what a server's ``Retry-After`` means (NFR-REL-001)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

SHORTEST_RETRY_AFTER = 30.0
LONGEST_RETRY_AFTER = 24 * 3600.0


def full_jitter(attempt: int, first: float, longest: float, random: Callable[[], float]) -> float:
    """Return seconds between 0 and ``first`` doubled ``attempt`` times, at most ``longest``; attempts count from 0.

    ``random`` returns a number in [0, 1).
    """
    # 2.0 ** 1024 overflows; long before that `longest` decides.
    return random() * min(longest, first * 2.0 ** min(attempt, 64))


def retry_after_seconds(header: str | None, now: datetime | None) -> float | None:
    """Read ``Retry-After`` (seconds, or a date if ``now`` is given), kept within 30 seconds and 24 hours.

    ``None`` if it is absent or junk.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    elif now is None:
        return None
    else:
        then = http_date(text)
        if then is None:
            return None
        seconds = (then - now).total_seconds()
    return min(LONGEST_RETRY_AFTER, max(SHORTEST_RETRY_AFTER, seconds))


def http_date(header: str | None) -> datetime | None:
    """Read a date of HTTP; ``None`` if it is absent or junk."""
    try:
        then = parsedate_to_datetime(header or "")
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)
