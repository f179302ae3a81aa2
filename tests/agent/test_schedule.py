"""When the next check is (FR-UPD-001, NFR-REL-001)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.schedule import (
    DEFAULT_INTERVAL,
    LONGEST,
    SHORTEST,
    after_answer,
    after_failure,
    load_failures,
    save_failures,
)

CHANCES = (0.0, 0.5, 0.999)


@pytest.mark.parametrize("chance", CHANCES)
def test_the_servers_interval_counts_unless_the_configuration_has_its_own(chance: float) -> None:
    assert 0.9 * 600 <= after_answer(DEFAULT_INTERVAL, 600, lambda: chance) <= 1.1 * 600
    assert 0.9 * 900 <= after_answer(900, 600, lambda: chance) <= 1.1 * 900


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(1, SHORTEST), (10**12, LONGEST), (10**4000, LONGEST), (0, DEFAULT_INTERVAL), (-5, DEFAULT_INTERVAL)],
)
def test_what_a_server_says_is_kept_within_bounds_and_nonsense_is_not_heard(said: int, seconds: float) -> None:
    assert after_answer(DEFAULT_INTERVAL, said, lambda: 0.5) == seconds


def test_failures_in_a_row_spread_and_stretch_the_pause() -> None:
    longest = [after_failure(failures, 14_400, None, lambda: 0.999) for failures in range(12)]
    assert longest == sorted(longest)
    assert longest[0] <= 30
    assert longest[-1] <= 14_400
    assert min(after_failure(failures, 14_400, None, lambda: 0.0) for failures in range(12)) > 1, "never at once"


def test_retry_after_is_honoured_within_a_day() -> None:
    assert after_failure(0, 14_400, 3600, lambda: 0.0) == 3600
    assert after_failure(0, 14_400, 10**9, lambda: 0.0) == LONGEST


def test_the_number_of_failures_survives_a_restart_and_garbage(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    assert load_failures(path) == 0
    save_failures(path, 3)
    assert load_failures(path) == 3
    path.write_bytes(b"\0" * 10)
    assert load_failures(path) == 0
