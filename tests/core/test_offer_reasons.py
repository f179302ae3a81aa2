"""Why, and until when: what an answer says of its reasons (promise 3, L52, FR-SRV-003)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from core.making import DEVICE_ID, EVERYBODY, HALTED, HOUR, NOBODY, NOW, PAUSED, TOMORROW, catalogue, device, release
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.model import Channel, Release, Rollout
from repo_server.core.offer import Code, Reason, _version_of, decide
from repo_server.core.policy import ChannelPolicy, TreeConfig
from repo_server.core.rollout import position
from repo_server.core.version import Version


def reason_of(
    tree: list[Release], has: str | None = "1.0.0", now: datetime = NOW, config: TreeConfig | None = None
) -> Reason:
    (reason,) = decide(catalogue(tree, config), device({"service": has}), now).reasons
    return reason


@pytest.mark.parametrize(
    ("tree", "has", "detail"),
    [
        ([release("service", "1.0.0")], "1.0.0", "1.0.0 installed, 1.0.0 is the newest"),
        ([release("service", "2.0.0")], "1.0.0", "2.0.0 (stable)"),
        (
            [release("service", "2.0.0", blocked="eats disks"), release("service", "1.1.0")],
            "1.0.0",
            "1.1.0 (stable); blocked: 2.0.0 is recalled: eats disks",
        ),
        (
            [release("service", "2.0.0", blocked="eats disks"), release("service", "1.0.0")],
            "2.0.0",
            "1.0.0 (stable), because 2.0.0 is recalled: eats disks",
        ),
        (
            [release("service", "2.0.0", blocked="eats disks"), release("service", "1.0.0", rollout=PAUSED)],
            "2.0.0",
            "2.0.0 is recalled (eats disks) and no other release is eligible; the rollout of 1.0.0 is paused",
        ),
        ([release("service", "2.0.0", rollout=NOBODY)], "1.0.0", "2.0.0 is rolled out to 0.0%"),
        ([release("service", "2.0.0", rollout=HALTED)], "1.0.0", "the rollout of 2.0.0 is halted after failures"),
        (
            [release("service", "2.0.0", rollout=TOMORROW)],
            "1.0.0",
            "the rollout of 2.0.0 starts at 2026-11-22T18:00:00+00:00",
        ),
        (
            [release("service", "2.0.0", "probe >= 1.0.0")],
            "1.0.0",
            "2.0.0 requires probe >= 1.0.0; probe is absent",
        ),
        (
            [release("service", "2.0.0", channel="beta")],
            "1.0.0",
            "no release of service is visible to stable; 2.0.0 is beta",
        ),
        ([], "1.0.0", "there is no release of service for linux-amd64"),
    ],
)
def test_a_reason_says_it_in_a_sentence(tree: list[Release], has: str, detail: str) -> None:
    """Promise 3: no silence."""
    assert reason_of(tree, has).detail == detail


def test_a_reason_names_the_release_that_it_is_about() -> None:
    ahead, behind = release("service", "2.0.0", rollout=PAUSED), release("service", "1.5.0", rollout=NOBODY)
    assert reason_of([ahead, behind]).release == ahead
    assert reason_of([release("service", "1.0.0")]).release == release("service", "1.0.0")


def test_a_recalled_version_is_named_where_something_requires_it() -> None:
    tree = [release("probe", "2.0.0", blocked="bad"), release("service", "2.0.0", "probe >= 2.0.0")]
    decision = decide(catalogue(tree), device({"service": "1.0.0", "probe": "2.0.0"}), NOW)
    assert decision.reasons[0].detail.endswith("probe is 2.0.0, which is recalled")


def test_the_answer_names_channel_and_source() -> None:
    """L31, FR-SRV-003."""
    made = catalogue([], policy=ChannelPolicy(devices={DEVICE_ID: Channel.ALPHA}))
    decision = decide(made, device({}), NOW)
    assert (decision.channel.channel, decision.channel.source) == ("alpha", "device")
    assert (decision.offers, decision.reasons, decision.universal) == ((), (), True)


# When the answer next changes

SLOW = Rollout(NOW - HOUR, 0.0, 1.0, 4 * 86400)


def test_the_time_when_a_device_will_be_reached_is_announced_and_right() -> None:
    """L52."""
    tree = [release("service", "2.0.0", rollout=SLOW)]
    at = reason_of(tree).changes_at
    assert at is not None
    assert reason_of(tree, now=at - HOUR / 60).code is Code.OUTSIDE_ROLLOUT
    assert reason_of(tree, now=at + HOUR / 60).code is Code.OFFERED


def test_a_ramp_that_will_not_reach_the_device_announces_nothing() -> None:
    assert reason_of([release("service", "2.0.0", rollout=NOBODY)]).changes_at is None
    assert reason_of([release("service", "2.0.0", rollout=PAUSED)]).changes_at is None


def test_only_a_better_release_changes_an_offer() -> None:
    """A lower release that is reached later changes nothing for a device that is offered a higher one."""
    higher, lower = release("service", "2.0.0"), release("service", "1.5.0", rollout=TOMORROW)
    assert reason_of([higher, lower]).changes_at is None
    assert reason_of([replace(higher, rollout=TOMORROW), replace(lower, rollout=None)]).changes_at == TOMORROW.start


def test_the_earliest_change_counts_for_a_device_that_is_offered_nothing() -> None:
    later = replace(TOMORROW, start=NOW + 48 * HOUR)
    tree = [release("service", "2.0.0", rollout=later), release("service", "1.5.0", rollout=TOMORROW)]
    assert reason_of(tree).changes_at == TOMORROW.start


def test_a_start_in_the_year_9999_is_answered_and_not_an_error() -> None:
    """One operator's "never" must not stop the answers of everybody."""
    never = Rollout(datetime.max.replace(tzinfo=NOW.tzinfo), 0.0, 1.0, 86400)
    reason = reason_of([release("service", "2.0.0", rollout=never)])
    assert (reason.code, reason.changes_at) == (Code.ROLLOUT_NOT_STARTED, None)


def test_components_of_one_release_reach_a_device_together() -> None:
    """L14: the seed is the version, so no device gets half a release."""
    names = ("service", "ui", "probe")
    tree = catalogue([release(name, "2.0.0", rollout=SLOW) for name in names])
    reached = NOW - HOUR + timedelta(seconds=4 * 86400 * position(SLOW, Version("2.0.0"), DEVICE_ID) / 2**64)
    for minutes in range(-120, 121, 7):
        now = reached + timedelta(minutes=minutes + 0.5)
        assert len(decide(tree, device(dict.fromkeys(names, "1.0.0")), now).offers) in {0, 3}


@given(st.sampled_from([NOBODY, EVERYBODY, PAUSED, TOMORROW]), st.sampled_from(["1.0.0", "1.5.0", "2.0.0"]))
def test_an_answer_is_universal_unless_a_ramp_had_a_say(rollout: Rollout, has: str) -> None:
    made = catalogue([release("service", "2.0.0", rollout=rollout), release("service", "1.5.0")])
    assert decide(made, device({"service": has}), NOW).universal == (has == "2.0.0")


def test_a_reason_without_a_release_was_never_passed_over() -> None:
    with pytest.raises(RuntimeError, match="has a version"):
        _version_of(Reason("service", Code.UP_TO_DATE, "…"))
