"""Who gets what: the one function that decides it, for server, repotool and agent alike (design §3, L50 to L52)."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from repo_server.core.catalogue import Catalogue
from repo_server.core.channels import AssignedChannel, resolve, sees
from repo_server.core.dependencies import safe_order, unmet
from repo_server.core.model import Device, Installed, Release
from repo_server.core.rollout import includes, reaches_at, share
from repo_server.core.version import Version
from repo_server.core.wire import Action


class Code(enum.StrEnum):
    """Why a component gets what it gets (L52); stable, in answers, logs and statistics."""

    OFFERED = "offered"
    UP_TO_DATE = "up_to_date"
    OUTSIDE_ROLLOUT = "outside_rollout"
    ROLLOUT_PAUSED = "rollout_paused"
    ROLLOUT_NOT_STARTED = "rollout_not_started"
    BLOCKED = "blocked"
    BELOW_FLOOR = "below_floor"
    REQUIRES_UNMET = "requires_unmet"
    REQUIRES_CYCLE = "requires_cycle"
    CHANNEL_HAS_NONE = "channel_has_none"
    NO_RELEASE_FOR_PLATFORM = "no_release_for_platform"
    UNKNOWN_COMPONENT = "unknown_component"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one component is offered what it is offered, or nothing."""

    component: str
    code: Code
    detail: str
    release: Release | None = None
    """The release that the reason is about."""
    changes_at: datetime | None = None
    """When the answer next changes by itself, if that is known."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A release for a device, and whether it goes up or back."""

    release: Release
    action: Action


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for a device: offers in a safe order, and a reason for every component."""

    channel: AssignedChannel
    offers: tuple[Offer, ...]
    reasons: tuple[Reason, ...]
    universal: bool
    """The answer depends neither on the time nor, but for the channel, on the device's id.

    Every device with the same channel, platform and components gets an equal one, at any time.
    """


@dataclass(slots=True)
class _Choice:
    """One component under consideration: its candidates from the best down, and why better ones fell out."""

    installed: Installed
    recalled: Release | None
    candidates: list[Release]
    passed_over: list[Reason]
    universal: bool = True

    @property
    def best(self) -> Release | None:
        return self.candidates[0] if self.candidates else None


def decide(catalogue: Catalogue, device: Device, now: datetime) -> Decision:
    """Decide what a device is offered, and say why (L50).

    ``now`` must carry a time zone. The answer never contains a release for another platform, a blocked one, one
    that the channel does not see, one below the floor, one outside its ramp, or one with an unmet requirement.
    """
    channel = resolve(device, catalogue.policy, catalogue.config.default_channel)
    choices = {item.name: _consider(catalogue, device, channel, item, now) for item in device.components}
    ordered = _settle(choices, catalogue.config.components)
    offers = tuple(Offer(release, _action(release, choices[release.component])) for release in ordered)
    reasons = tuple(_explain(catalogue, device, channel, choice) for choice in choices.values())
    return Decision(channel, offers, reasons, all(choice.universal for choice in choices.values()))


def _consider(
    catalogue: Catalogue, device: Device, channel: AssignedChannel, installed: Installed, now: datetime
) -> _Choice:
    releases = catalogue.releases(device.platform, installed.name)
    recalled = next(
        (release for release in releases if release.block is not None and release.version == installed.version), None
    )
    choice = _Choice(installed, recalled, [], [])
    for release in releases:
        if not sees(channel.channel, release.channel):
            continue
        higher = installed.version is None or release.version > installed.version
        if not higher and (recalled is None or release.version == installed.version):
            continue
        if release.rollout is not None:
            choice.universal = False
        reason = _exclusion(catalogue, device, release, now)
        if reason is None:
            choice.candidates.append(release)
        else:
            choice.passed_over.append(reason)
    return choice


def _exclusion(catalogue: Catalogue, device: Device, release: Release, now: datetime) -> Reason | None:
    """Say why a visible release is not for a device, apart from its requirements."""
    name, version, rollout = release.component, release.version, release.rollout
    if release.block is not None:
        return Reason(name, Code.BLOCKED, f"{version} is recalled: {release.block.reason}", release)
    floor = catalogue.config.floors.get(name)
    if floor is not None and version < floor:
        return Reason(name, Code.BELOW_FLOOR, f"{version} is below the floor {floor} of repo.toml", release)
    if rollout is None or includes(rollout, version, device.device_id, now):
        return None
    if rollout.paused:
        how = "halted after failures" if rollout.halted else "paused"
        return Reason(name, Code.ROLLOUT_PAUSED, f"the rollout of {version} is {how}", release)
    changes_at = reaches_at(rollout, version, device.device_id)
    if now < rollout.start:
        detail = f"the rollout of {version} starts at {rollout.start.isoformat()}"
        return Reason(name, Code.ROLLOUT_NOT_STARTED, detail, release, changes_at)
    detail = f"{version} is rolled out to {share(rollout, now):.1%}"
    if device.device_id is None:
        detail += "; a device without an id gets it at 100 %"
    return Reason(name, Code.OUTSIDE_ROLLOUT, detail, release, changes_at)


def _settle(choices: dict[str, _Choice], preference: tuple[str, ...]) -> list[Release]:
    """Drop candidates until all requirements are met and there is an order; return the offers in it.

    Requirements only ask for "at least", so lowering one candidate can never help another: descending from the
    best candidates ends at the highest set that works, in whichever order the components stand. (In a circle there
    may be several such sets: all of it descends, and the next check gets the rest.)
    """
    installed = {name: choice.installed.version for name, choice in choices.items()}
    while True:
        dropped = [name for name in choices if _drop_unmet(name, choices)]
        if dropped:
            continue
        chosen = {name: choice.best for name, choice in choices.items()}
        ordered, stuck = safe_order({name: best for name, best in chosen.items() if best}, preference, installed.get)
        if not stuck:
            return ordered
        for release in stuck:
            choice = choices[release.component]
            detail = f"{release.version} could only be installed after itself"
            choice.passed_over.append(Reason(release.component, Code.REQUIRES_CYCLE, detail, choice.candidates.pop(0)))


def _drop_unmet(name: str, choices: dict[str, _Choice]) -> bool:
    best = choices[name].best
    if best is None:
        return False

    def version_of(component: str) -> Version | None:
        other = choices.get(component)
        if other is None:
            return None
        if component == name:  # a stepping stone: what was there before
            return other.installed.version
        if other.best is not None:
            return other.best.version
        # A recalled version is on its way out: nothing is built on it (L51). Otherwise a candidate that falls out
        # would raise what is there, and the answer would depend on the order of the components.
        return None if other.recalled is not None else other.installed.version

    missing = unmet(best, version_of)
    if not missing:
        return False
    have = ", ".join(f"{item.name} is {version_of(item.name) or _lack_of(choices.get(item.name))}" for item in missing)
    needs = ", ".join(str(item) for item in missing)
    reason = Reason(name, Code.REQUIRES_UNMET, f"{best.version} requires {needs}; {have}", best)
    choices[name].passed_over.append(reason)
    choices[name].candidates.pop(0)
    return True


def _lack_of(choice: _Choice | None) -> str:
    return f"{choice.installed.version}, which is recalled" if choice is not None and choice.recalled else "absent"


def _action(release: Release, choice: _Choice) -> Action:
    installed = choice.installed.version
    return Action.ROLLBACK if installed is not None and release.version < installed else Action.UPDATE


def _explain(catalogue: Catalogue, device: Device, channel: AssignedChannel, choice: _Choice) -> Reason:
    name, have = choice.installed.name, choice.installed.version
    held_back = sorted(choice.passed_over, key=_version_of, reverse=True)
    if choice.best is not None:
        held_back = [reason for reason in held_back if _version_of(reason) > choice.best.version]
    changes_at = min((reason.changes_at for reason in held_back if reason.changes_at), default=None)
    if choice.best is not None:
        better = next(iter(held_back), None)
        what = f"{choice.best.version} ({choice.best.channel})"
        if choice.recalled is not None and choice.recalled.block is not None:
            what += f", because {have} is recalled: {choice.recalled.block.reason}"
        if better is not None:
            what += f"; {better.code}: {better.detail}"
        return Reason(name, Code.OFFERED, what, choice.best, changes_at)
    if choice.recalled is not None and choice.recalled.block is not None:
        detail = f"{have} is recalled ({choice.recalled.block.reason}) and no other release is eligible"
        detail += "".join(f"; {reason.detail}" for reason in held_back[:3])
        return Reason(name, Code.BLOCKED, detail, choice.recalled, changes_at)
    if held_back:
        top = held_back[0]
        return Reason(name, top.code, top.detail, top.release, changes_at)
    return _nothing_newer(catalogue, device, channel, choice.installed)


def _nothing_newer(catalogue: Catalogue, device: Device, channel: AssignedChannel, installed: Installed) -> Reason:
    name = installed.name
    releases = catalogue.releases(device.platform, name)
    if not releases:
        if name not in catalogue.config.components:
            known = ", ".join(catalogue.config.components)
            return Reason(name, Code.UNKNOWN_COMPONENT, f"{name!r} is not a component of this tree ({known})")
        return Reason(name, Code.NO_RELEASE_FOR_PLATFORM, f"there is no release of {name} for {device.platform}")
    visible = next(_visible(releases, channel), None)
    if visible is None:
        lowest = f"; {releases[0].version} is {releases[0].channel}"
        return Reason(name, Code.CHANNEL_HAS_NONE, f"no release of {name} is visible to {channel.channel}{lowest}")
    return Reason(name, Code.UP_TO_DATE, f"{installed.version} installed, {visible.version} is the newest", visible)


def _visible(releases: tuple[Release, ...], channel: AssignedChannel) -> Iterator[Release]:
    return (release for release in releases if sees(channel.channel, release.channel))


def _version_of(reason: Reason) -> Version:
    if reason.release is None:
        raise RuntimeError("a release that was passed over has a version")
    return reason.release.version
