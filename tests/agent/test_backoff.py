"""When to ask again: what the server says within bounds, else by full jitter (NFR-REL-001)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asking import NOW

from agent.backoff import full_jitter, retry_after_seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("0", 30),
        ("120", 120),
        (" 120 ", 120),
        ("9" * 400, 86_400),
        ("Sat, 21 Nov 2026 17:10:00 GMT", 600),
        ("Sat, 21 Nov 2026 17:10:00", 600),
        ("Sat, 21 Nov 2020 17:10:00 GMT", 30),
        ("Sat, 21 Nov 9999 17:10:00 GMT", 86_400),
        ("Sat, 41 Nov 2026 17:10:00 GMT", None),
    ],
)
def test_retry_after_is_kept_within_30_seconds_and_24_hours(header: str | None, seconds: float | None) -> None:
    """Design §8; junk is as if it were not there."""
    assert retry_after_seconds(header, NOW) == seconds


@given(header=st.text())
def test_no_retry_after_raises(header: str) -> None:
    seconds = retry_after_seconds(header, NOW)
    assert seconds is None or 30 <= seconds <= 86_400


@given(attempt=st.integers(0, 10_000), random=st.floats(0, 1, exclude_max=True))
def test_full_jitter_stays_between_nothing_and_the_longest(attempt: int, random: float) -> None:
    """NFR-REL-001."""
    pause = full_jitter(attempt, 1.0, 30.0, lambda: random)
    assert 0 <= pause <= min(30.0, 2.0 ** min(attempt, 10))
