"""When the next check is (FR-UPD-001, NFR-REL-001)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.durable import save
from agent.schedule import (
    DEFAULT_INTERVAL,
    LONGEST,
    SHORTEST,
    Remembered,
    after_answer,
    after_failure,
    load_remembered,
    may_report,
    save_remembered,
)

CHANCES = (0.0, 0.5, 0.999)
NOW = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)


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


def test_what_is_remembered_survives_a_restart_and_garbage(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    assert load_remembered(path) == Remembered()
    remembered = Remembered(3, NOW)
    save_remembered(path, remembered)
    assert load_remembered(path) == remembered
    path.write_bytes(b"\0" * 10)
    assert load_remembered(path) == Remembered()


@pytest.mark.parametrize("payload", [{"failures": -1}, {"failures": "x"}, {"reports_after": "2026-11-21T17:00:00"}])
def test_what_makes_no_sense_is_not_remembered(tmp_path: Path, payload: dict[str, object]) -> None:
    save(tmp_path / "schedule.json", payload)
    assert load_remembered(tmp_path / "schedule.json") == Remembered()


@pytest.mark.parametrize(("hours", "may"), [(1, False), (24, False), (0, True), (-1, True), (87_600, True)])
def test_reports_wait_as_long_as_the_server_said_unless_the_clock_was_wrong(hours: int, may: bool) -> None:
    assert may_report(Remembered(0, NOW + timedelta(hours=hours)), NOW) is may
    assert may_report(Remembered(), NOW)
