"""When the resident agent checks next, on clocks of the test's own (FR-UPD-001)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.appointment import FARTHEST, LATE_JITTER, Appointment

NOW = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)
HOUR = 3600.0
CHANCES = (0.0, 0.5, 0.999)


class Clocks:
    """A wall clock and a monotonic one, which go on together until a test moves one."""

    def __init__(self, status: Path) -> None:
        self.status = status
        self.wall = NOW
        self.seconds = 1000.0

    def go_on(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)

    def sleep(self, seconds: float) -> None:
        """Suspend the machine: its monotonic clock stands still."""
        self.wall += timedelta(seconds=seconds)

    def note(self, after: float, before: float = 0.0) -> None:
        last, following = self.wall - timedelta(seconds=before), self.wall + timedelta(seconds=after)
        times = {"last_check_time": last.isoformat(), "next_check_time": following.isoformat()}
        self.status.write_text(json.dumps(times))

    def appointment(self, chance: float = 0.5) -> Appointment:
        return Appointment(self.status, lambda: self.wall, lambda: self.seconds, lambda: chance)

    def until(self, appointment: Appointment) -> float:
        return appointment.at - self.seconds


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path / "status.json")


def test_the_noted_time_is_kept_over_a_restart(clocks: Clocks) -> None:
    clocks.note(2 * HOUR)
    appointment = clocks.appointment()
    appointment.begin()
    assert clocks.until(appointment) == 2 * HOUR
    assert not appointment.is_due()
    clocks.go_on(2 * HOUR)
    assert appointment.is_due()


def test_a_machine_that_never_checked_checks_at_once(clocks: Clocks) -> None:
    appointment = clocks.appointment()
    appointment.begin()
    assert appointment.is_due()


@pytest.mark.parametrize("chance", CHANCES)
def test_an_overdue_check_is_spread_and_never_by_more_than_the_interval(clocks: Clocks, chance: float) -> None:
    """A fleet that is switched on at nine does not come at nine."""
    for interval, most in ((4 * HOUR, LATE_JITTER), (60.0, 60.0)):
        clocks.note(after=-10, before=interval + 10)
        appointment = clocks.appointment(chance)
        appointment.begin()
        assert clocks.until(appointment) == pytest.approx(chance * most)


def test_a_check_that_somebody_else_made_is_not_made_again(clocks: Clocks) -> None:
    """``checknow`` at the command line beside the resident agent."""
    clocks.note(HOUR)
    appointment = clocks.appointment()
    appointment.begin()
    clocks.go_on(HOUR / 2)
    clocks.note(4 * HOUR)
    clocks.go_on(HOUR / 2)
    assert not appointment.is_due()
    assert clocks.until(appointment) == 3.5 * HOUR


def test_after_a_sleep_the_check_is_not_late_by_it(clocks: Clocks) -> None:
    clocks.note(4 * HOUR)
    appointment = clocks.appointment(0.0)
    appointment.begin()
    clocks.go_on(60)
    clocks.sleep(8 * HOUR)
    appointment.follow_the_clock()
    assert appointment.is_due()


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_jumps_by_years_puts_nothing_off(clocks: Clocks, years: int) -> None:
    clocks.note(4 * HOUR, before=0)
    appointment = clocks.appointment()
    appointment.begin()
    clocks.wall += timedelta(days=365 * years)
    appointment.follow_the_clock()
    assert clocks.until(appointment) <= LATE_JITTER


def test_a_noted_time_that_no_right_clock_can_have_written_is_overdue(clocks: Clocks) -> None:
    clocks.note(FARTHEST + 10)
    appointment = clocks.appointment()
    appointment.begin()
    assert clocks.until(appointment) <= LATE_JITTER


def test_small_corrections_of_the_clock_change_nothing(clocks: Clocks) -> None:
    clocks.note(HOUR)
    appointment = clocks.appointment()
    appointment.begin()
    before = appointment.at
    clocks.wall += timedelta(seconds=5)
    appointment.follow_the_clock()
    assert appointment.at == before


@pytest.mark.parametrize(
    "damage", [b"", b"\0" * 50, b"[]", b"[" * 100_000, b'{"next_check_time": 7}', b'{"next_check_time": "2026-11-21"}']
)
def test_cycles_that_note_nothing_are_repeated_ever_more_slowly(clocks: Clocks, damage: bytes) -> None:
    clocks.status.write_bytes(damage)
    appointment = clocks.appointment(0.999)
    pauses = [appointment.follow_the_cycle() or 0.0 for _ in range(12)]
    assert pauses == sorted(pauses)
    assert 30 <= pauses[0] <= 90
    assert pauses[-1] > 3000
    clocks.note(HOUR)
    assert appointment.follow_the_cycle() is None
    assert clocks.until(appointment) == HOUR
