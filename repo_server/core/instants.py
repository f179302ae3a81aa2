"""Times that stand in UTC's calendar: what is written down, sorted and compared (L16)."""

from __future__ import annotations

from datetime import UTC, datetime


def has_utc(instant: datetime) -> bool:
    """Whether a time with its zone is one in UTC's years 1 to 9999, which Python and RFC 3339 end with."""
    try:
        instant.astimezone(UTC)
    except OverflowError:
        return False
    return True
