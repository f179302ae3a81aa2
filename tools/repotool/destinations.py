"""Where devices go when a version is recalled (L51). Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from repo_server.core.catalogue import Catalogue
from repo_server.core.channels import sees
from repo_server.core.model import Channel, Device, Installed, Platform, ReleaseId
from repo_server.core.offer import decide
from repo_server.core.version import Version


@dataclass(frozen=True, slots=True)
class Destination:
    """What devices of one channel are offered in place of a recalled release; ``None``: they stay on it."""

    recalled: ReleaseId
    channel: Channel
    version: Version | None
    detail: str


def destinations(catalogue: Catalogue, recalled: Collection[ReleaseId], now: datetime) -> Iterator[Destination]:
    """Ask for every channel what a device with the recalled releases is offered.

    Its other components are taken to be the newest that its channel sees.
    """
    for platform in sorted({item.platform for item in recalled}):
        here = {item.component: item for item in recalled if item.platform == platform}
        for channel in Channel:
            device = Device(platform, _installed(catalogue, platform, channel, here), channel)
            decision = decide(catalogue, device, now)
            offered = {offer.release.component: offer.release.version for offer in decision.offers}
            details = {reason.component: reason.detail for reason in decision.reasons}
            for name, item in here.items():
                yield Destination(item, channel, offered.get(name), details[name])


def _installed(
    catalogue: Catalogue, platform: Platform, channel: Channel, recalled: dict[str, ReleaseId]
) -> tuple[Installed, ...]:
    found = [Installed(name, item.version) for name, item in recalled.items()]
    for name in catalogue.config.components:
        newest = next(
            (
                release
                for release in catalogue.releases(platform, name)
                if release.block is None and sees(channel, release.channel)
            ),
            None,
        )
        if name not in recalled and newest is not None:
            found.append(Installed(name, newest.version))
    return tuple(found)
