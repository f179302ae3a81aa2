"""Channels: which releases a channel sees, and which channel a device is on (L12, L31, FR-SRV-003)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from repo_server.core.model import Channel, Device
from repo_server.core.policy import ChannelPolicy

_SEES: dict[Channel, frozenset[Channel]] = {
    Channel.STABLE: frozenset({Channel.STABLE}),
    Channel.BETA: frozenset({Channel.STABLE, Channel.BETA}),
    Channel.ALPHA: frozenset({Channel.STABLE, Channel.BETA, Channel.ALPHA}),
}


class ChannelSource(enum.StrEnum):
    """Who decided a device's channel."""

    DEVICE = "device"
    SITE = "site"
    ORGANISATION = "organisation"
    AGENT = "agent"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class AssignedChannel:
    """A channel and who decided it."""

    channel: Channel
    source: ChannelSource


def sees(device_channel: Channel, release_channel: Channel) -> bool:
    """Whether devices on one channel see releases of another (L12)."""
    return release_channel in _SEES[device_channel]


def resolve(device: Device, policy: ChannelPolicy, tree_default: Channel) -> AssignedChannel:
    """Return a device's channel: device → site → organisation → agent → default (L31)."""
    own = device.assigned_channel or policy.devices.get(device.device_id or "")
    if own is not None:
        return AssignedChannel(own, ChannelSource.DEVICE)
    if device.site_id is not None and device.site_id in policy.sites:
        return AssignedChannel(policy.sites[device.site_id], ChannelSource.SITE)
    if device.org_id is not None and device.org_id in policy.organisations:
        return AssignedChannel(policy.organisations[device.org_id], ChannelSource.ORGANISATION)
    if device.configured_channel is not None:
        return AssignedChannel(device.configured_channel, ChannelSource.AGENT)
    return AssignedChannel(policy.default or tree_default, ChannelSource.DEFAULT)
