"""Ramps: nobody at 0, everybody at 1, and who is in stays in (L14)."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from core.making import DEVICE_ID, NOW, instants, shares, versions
from hypothesis import assume, example, given
from hypothesis import strategies as st

from repo_server.core.model import Rollout
from repo_server.core.rollout import includes, position, reaches_at, share
from repo_server.core.version import Version

V = Version("1.2.3")
SECOND = timedelta(seconds=1)
device_ids = st.uuids().map(str)
ramps = st.builds(
    lambda start, bounds, seconds, seed: Rollout(start, min(bounds), max(bounds), seconds, seed=seed),
    instants,
    st.tuples(shares, shares) | st.tuples(shares, st.just(1.0)) | shares.map(lambda to: (to, to)),
    st.integers(0, 366 * 86400) | st.just(0),
    st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=10),
)
offsets = st.floats(-3 * 86400, 400 * 86400).map(lambda seconds: timedelta(seconds=seconds))


def fleet(size: int) -> list[str]:
    """Return device ids that are the same in every run."""
    return [str(uuid.UUID(bytes=hashlib.md5(b"%d" % number).digest())) for number in range(size)]  # noqa: S324 -- ids, not secrets


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-1, 0.0), (0, 0.1), (43200, 0.55), (86400, 1.0), (10**6, 1.0)],
)
def test_a_ramp_grows_in_a_straight_line_from_its_start(seconds: int, expected: float) -> None:
    """L14."""
    rollout = Rollout(NOW, 0.1, 1.0, 86400)
    assert share(rollout, NOW + timedelta(seconds=seconds)) == pytest.approx(expected)


def test_without_a_duration_the_whole_share_starts_at_once() -> None:
    rollout = Rollout(NOW, 0.1, 0.4)
    assert (share(rollout, NOW - SECOND), share(rollout, NOW)) == (0.0, 0.4)


@given(ramps, offsets, offsets, device_ids, versions)
def test_a_device_that_is_in_stays_in(
    rollout: Rollout, one: timedelta, two: timedelta, device_id: str, version: Version
) -> None:
    """L14: the set only grows."""
    earlier, later = sorted([rollout.start + one, rollout.start + two])
    assert 0.0 <= share(rollout, earlier) <= share(rollout, later) <= rollout.to_share
    assert includes(rollout, version, device_id, earlier) <= includes(rollout, version, device_id, later)
    assert includes(rollout, version, None, earlier) <= includes(rollout, version, device_id, earlier)


@given(ramps, offsets, device_ids, shares)
def test_a_larger_share_never_leaves_out_a_device_of_a_smaller_one(
    rollout: Rollout, offset: timedelta, device_id: str, more: float
) -> None:
    """An operator who raises ``to`` keeps everybody in."""
    assume(more >= rollout.to_share)
    now = rollout.start + offset
    raised = replace(rollout, to_share=more)
    assert includes(rollout, V, device_id, now) <= includes(raised, V, device_id, now)


@given(st.none() | device_ids, offsets, st.integers(0, 366 * 86400))
def test_zero_admits_nobody_and_one_admits_all(device_id: str | None, offset: timedelta, seconds: int) -> None:
    """L14: all, also devices without an id."""
    now = NOW + offset
    assert not includes(Rollout(NOW, 0.0, 0.0, seconds), V, device_id, now)
    assert includes(Rollout(NOW, 1.0, 1.0, seconds), V, device_id, now) == (now >= NOW)
    assert not includes(Rollout(NOW, 1.0, 1.0, seconds, paused=True), V, device_id, now)


@given(ramps, offsets, device_ids, versions)
def test_membership_is_the_comparison_that_the_format_says(
    rollout: Rollout, offset: timedelta, device_id: str, version: Version
) -> None:
    """L14: ``u < share``, ``u`` the first eight bytes of ``sha256(seed ":" device_id)``, in exact arithmetic."""
    now = rollout.start + offset
    seed = str(version) if rollout.seed is None else rollout.seed
    u = Fraction(int(hashlib.sha256(f"{seed}:{device_id}".encode()).hexdigest()[:16], 16), 2**64)
    assert includes(rollout, version, device_id, now) == (u < Fraction(share(rollout, now)))


def test_cohorts_are_uniform_and_differ_from_release_to_release() -> None:
    """Each tenth of the line holds a tenth of the fleet, and the first tenth of one release is not that of the next."""
    devices = fleet(20_000)
    rollout = Rollout(NOW, 0.1, 0.1)
    tenths = [0] * 10
    for device_id in devices:
        tenths[position(rollout, V, device_id) * 10 // 2**64] += 1
    # Five standard deviations of a binomial distribution; the ids are fixed, so this holds in every run or in none.
    assert all(abs(count - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5 for count in tenths), tenths
    first = {item for item in devices if includes(rollout, V, item, NOW)}
    second = {item for item in devices if includes(rollout, Version("1.2.4"), item, NOW)}
    assert abs(len(first & second) - 200) < 5 * 200**0.5


@given(device_ids, shares, versions, versions)
def test_the_same_seed_moves_together(device_id: str, to: float, one: Version, two: Version) -> None:
    """L14: the components of one release, and releases that name the same seed."""
    seeded = Rollout(NOW, to, to, seed="wave-7")
    assert includes(seeded, one, device_id, NOW) == includes(seeded, two, device_id, NOW)
    by_version = Rollout(NOW, to, to)
    assert position(by_version, one, device_id) == position(replace(by_version, seed=str(one)), two, device_id)


@given(ramps, st.none() | device_ids)
def test_the_announced_time_is_when_the_ramp_reaches_the_device(rollout: Rollout, device_id: str | None) -> None:
    """L52: ``changes_at`` is right to a second; ``None`` means not within this ramp, ever."""
    at = reaches_at(rollout, V, device_id)
    if at is None:
        assert not includes(rollout, V, device_id, rollout.start + timedelta(days=3650))
        return
    assert rollout.start <= at <= rollout.start + timedelta(seconds=rollout.duration_seconds)
    assert includes(rollout, V, device_id, at + SECOND)
    assert not includes(rollout, V, device_id, at - SECOND)


def test_a_paused_ramp_announces_nothing_and_admits_nobody() -> None:
    """L14."""
    rollout = Rollout(NOW, 1.0, 1.0, paused=True)
    assert reaches_at(rollout, V, DEVICE_ID) is None
    assert not includes(rollout, V, DEVICE_ID, NOW + timedelta(days=400))


@example(datetime.max.replace(tzinfo=UTC))
@given(st.sampled_from([datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]))
def test_a_start_at_the_end_of_time_is_never_reached_and_never_an_error(start: datetime) -> None:
    """Somebody's "never": 9999-12-31."""
    rollout = Rollout(start, 0.0, 1.0, 366 * 86400)
    assert includes(rollout, V, DEVICE_ID, NOW) == (start < NOW)
    assert (reaches_at(rollout, V, DEVICE_ID) is None) == (start > NOW)
