"""Which releases a channel sees, and which channel a device is on (L12, L31, FR-SRV-003)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core.making import DEVICE_ID, device
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.channels import AssignedChannel, ChannelSource, resolve, sees
from repo_server.core.model import Channel
from repo_server.core.policy import ChannelPolicy, parse_channels_toml

ALPHA, BETA, STABLE = Channel.ALPHA, Channel.BETA, Channel.STABLE


@pytest.mark.parametrize(
    ("device_is_on", "sees_stable", "sees_beta", "sees_alpha"),
    [(STABLE, True, False, False), (BETA, True, True, False), (ALPHA, True, True, True)],
)
def test_a_bolder_channel_sees_everything_that_a_more_careful_one_sees(
    device_is_on: Channel, sees_stable: bool, sees_beta: bool, sees_alpha: bool
) -> None:
    """L12."""
    found = tuple(sees(device_is_on, channel) for channel in (STABLE, BETA, ALPHA))
    assert found == (sees_stable, sees_beta, sees_alpha)


@pytest.mark.parametrize(
    ("own", "listed", "site", "organisation", "agent", "default", "tree", "channel", "source"),
    [
        # own,  listed, site,  org,    agent,  policy's default, tree's, result
        (ALPHA, BETA, BETA, BETA, BETA, BETA, BETA, ALPHA, "device"),
        (None, ALPHA, BETA, BETA, BETA, BETA, BETA, ALPHA, "device"),
        (None, None, ALPHA, BETA, BETA, BETA, BETA, ALPHA, "site"),
        (None, None, None, ALPHA, BETA, BETA, BETA, ALPHA, "organisation"),
        (None, None, None, None, ALPHA, BETA, BETA, ALPHA, "agent"),
        (None, None, None, None, None, ALPHA, BETA, ALPHA, "default"),
        (None, None, None, None, None, None, ALPHA, ALPHA, "default"),
        (STABLE, ALPHA, ALPHA, ALPHA, ALPHA, ALPHA, ALPHA, STABLE, "device"),
        (None, None, STABLE, ALPHA, ALPHA, ALPHA, ALPHA, STABLE, "site"),
    ],
)
def test_the_nearest_assignment_decides(
    own: Channel | None,
    listed: Channel | None,
    site: Channel | None,
    organisation: Channel | None,
    agent: Channel | None,
    default: Channel | None,
    tree: Channel,
    channel: Channel,
    source: str,
) -> None:
    """L31: device → site → organisation → agent → policy's default → tree's default."""
    policy = ChannelPolicy(
        default,
        {} if organisation is None else {"org": organisation},
        {} if site is None else {"berlin-lab": site},
        {} if listed is None else {DEVICE_ID: listed},
    )
    who = replace(device({}, agent), org_id="org", site_id="berlin-lab", assigned_channel=own)
    assert resolve(who, policy, tree) == AssignedChannel(channel, ChannelSource(source))


def test_an_assignment_of_others_changes_nothing() -> None:
    policy = ChannelPolicy(None, {"other": ALPHA}, {"other": ALPHA}, {"other": ALPHA})
    nobody = device({}, None, device_id=None)
    assert resolve(nobody, policy, STABLE) == AssignedChannel(STABLE, ChannelSource.DEFAULT)
    somebody = replace(device({}, BETA), org_id="mine", site_id="mine")
    assert resolve(somebody, policy, STABLE) == AssignedChannel(BETA, ChannelSource.AGENT)


def test_ids_are_compared_without_case_and_prefix() -> None:
    """L31, L53."""
    policy = parse_channels_toml(
        f'[sites]\n" Berlin-LAB" = "alpha"\n[devices]\n"WIN-{DEVICE_ID.upper()}" = "beta"\n'.encode()
    )
    assert resolve(device({}), policy, STABLE).channel is BETA
    assert resolve(replace(device({}, device_id=None), site_id="berlin-lab"), policy, STABLE).channel is ALPHA


@given(st.sampled_from(Channel), st.sampled_from(Channel), st.sampled_from(Channel))
def test_visibility_is_transitive_and_a_channel_sees_itself(a: Channel, b: Channel, c: Channel) -> None:
    """L12."""
    assert sees(a, a)
    assert not (sees(a, b) and sees(b, c)) or sees(a, c)
    assert sees(a, b) or sees(b, a)
