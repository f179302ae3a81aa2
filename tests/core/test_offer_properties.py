"""What holds for every tree and every device, and brute force as the judge of the choice (L50 to L52)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from core.making import ARM, DEVICE_ID, LINUX, NOW, catalogue, device, release
from hypothesis import event, given, settings
from hypothesis import strategies as st

from repo_server.core.catalogue import Catalogue
from repo_server.core.channels import sees
from repo_server.core.model import Channel, Device, Installed, Release, Rollout
from repo_server.core.offer import Code, Decision, decide
from repo_server.core.policy import TreeConfig
from repo_server.core.rollout import includes
from repo_server.core.version import Version

NAMES = ["service", "ui", "probe"]
VERSIONS = ["1.0.0", "2.0.0-rc.1", "2.0.0", "3.0.0"]
HOUR = timedelta(hours=1)

rollouts = st.sampled_from(
    [
        None,
        None,
        None,
        Rollout(NOW - HOUR, 0.0, 0.0),
        Rollout(NOW - HOUR, 1.0, 1.0),
        Rollout(NOW - HOUR, 0.5, 0.5),
        Rollout(NOW - HOUR, 0.0, 1.0, 7200),
        Rollout(NOW - HOUR, 1.0, 1.0, paused=True),
        Rollout(NOW + HOUR, 1.0, 1.0),
    ]
)


@st.composite
def releases(draw: st.DrawFn, circles: bool) -> Release:
    """Draw a release; without circles, components require only those before them in ``NAMES``, and themselves."""
    component = draw(st.sampled_from(NAMES))
    allowed = NAMES if circles else NAMES[: NAMES.index(component) + 1]
    wanted = draw(st.lists(st.sampled_from(allowed), max_size=2, unique=True))
    return release(
        component,
        draw(st.sampled_from(VERSIONS)),
        *(f"{name} >= {draw(st.sampled_from(VERSIONS))}" for name in wanted),
        platform=draw(st.sampled_from([LINUX, LINUX, LINUX, ARM])),
        channel=draw(st.sampled_from([Channel.STABLE, Channel.STABLE, Channel.BETA, Channel.ALPHA])),
        rollout=draw(rollouts),
        blocked=draw(st.sampled_from([None, None, None, "bad"])),
    )


@dataclass(frozen=True)
class World:
    """A tree and a device that asks."""

    catalogue: Catalogue
    device: Device

    def decide(self, now: datetime = NOW) -> Decision:
        return decide(self.catalogue, self.device, now)

    @property
    def installed(self) -> dict[str, Version | None]:
        return {item.name: item.version for item in self.device.components}

    def recalled(self, name: str) -> bool:
        found = self.catalogue.releases(self.device.platform, name)
        return any(item.block is not None and item.version == self.installed[name] for item in found)


@st.composite
def worlds(draw: st.DrawFn, circles: bool = False) -> World:
    """Draw a tree and a device that wants some of the components, in any order."""
    some = draw(st.lists(releases(circles), max_size=9, unique_by=lambda item: item.id))
    floors = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VERSIONS).map(Version), max_size=1))
    names = draw(st.permutations([*NAMES, "stranger"]))[: draw(st.integers(0, 4))]
    has = {name: draw(st.sampled_from([None, *VERSIONS])) for name in names}
    who = device(has, draw(st.sampled_from(Channel)), device_id=draw(st.sampled_from([None, DEVICE_ID])))
    return World(catalogue(some, TreeConfig(floors=floors)), who)


def eligible(world: World, name: str) -> list[Release]:
    """Return the releases of a component that may be offered, were it not for requirements; as L50 and L51 list it."""
    channel, have = world.device.configured_channel or Channel.STABLE, world.installed[name]
    floor = world.catalogue.config.floors.get(name)
    return [
        item
        for item in world.catalogue
        if item.component == name
        and item.platform == world.device.platform
        and item.block is None
        and sees(channel, item.channel)
        and (floor is None or item.version >= floor)
        and (item.rollout is None or includes(item.rollout, item.version, world.device.device_id, NOW))
        and (have is None or item.version > have or (world.recalled(name) and item.version != have))
    ]


def requirements_hold(world: World, chosen: dict[str, Release]) -> bool:
    """Whether each chosen release finds what it requires in what is chosen or stays."""
    for item in chosen.values():
        for need in item.requires:
            if need.name == item.component:
                have = world.installed[need.name]
            elif need.name in chosen:
                have = chosen[need.name].version
            else:
                have = (
                    None
                    if need.name not in world.installed or world.recalled(need.name)
                    else world.installed[need.name]
                )
            if have is None or have < need.min_version:
                return False
    return True


def in_order(world: World, order: list[Release]) -> bool:
    """Whether each release finds what it requires when its turn comes."""
    state = dict(world.installed)
    for item in order:
        for need in item.requires:
            have = state.get(need.name)
            if have is None or have < need.min_version:
                return False
        state[item.component] = item.version
    return True


def workable(world: World) -> list[dict[str, Release]]:
    """Return every choice that could be offered, by brute force."""
    names = list(world.installed)
    found = []
    for pick in itertools.product(*([None, *eligible(world, name)] for name in names)):
        chosen = {name: item for name, item in zip(names, pick, strict=True) if item is not None}
        if requirements_hold(world, chosen) and any(
            in_order(world, list(order)) for order in itertools.permutations(chosen.values())
        ):
            found.append(chosen)
    return found


def offered(decision: Decision) -> dict[str, Release]:
    return {offer.release.component: offer.release for offer in decision.offers}


@settings(max_examples=max(400, settings.default.max_examples))
@given(worlds())
def test_the_offer_is_the_highest_that_brute_force_finds(world: World) -> None:
    """L50, L51: without circles there is one highest choice, and it is made for every component at once."""
    choices = workable(world)
    best = {
        name: max((choice[name] for choice in choices if name in choice), key=lambda item: item.version, default=None)
        for name in world.installed
    }
    event(f"{sum(item is not None for item in best.values())} offers")
    assert offered(world.decide()) == {name: item for name, item in best.items() if item is not None}


@settings(max_examples=max(400, settings.default.max_examples))
@given(worlds(circles=True))
def test_whatever_is_offered_is_workable_and_something_is_if_anything_is(world: World) -> None:
    """L50: with circles in the tree as well."""
    decision, choices = world.decide(), workable(world)
    assert offered(decision) in choices
    assert in_order(world, [offer.release for offer in decision.offers])
    assert bool(decision.offers) == any(choices)


@given(worlds(circles=True))
def test_no_offer_breaks_a_rule(world: World) -> None:
    """L50, L51: platform, recall, channel, floor, ramp, and never back but from a recalled version."""
    channel = world.device.configured_channel or Channel.STABLE
    for offer in world.decide().offers:
        item, have = offer.release, world.installed[offer.release.component]
        assert item.platform == world.device.platform
        assert item.block is None
        assert sees(channel, item.channel)
        assert item.version >= world.catalogue.config.floors.get(item.component, item.version)
        assert item.rollout is None or includes(item.rollout, item.version, world.device.device_id, NOW)
        goes_back = have is not None and item.version < have
        assert offer.action == ("rollback" if goes_back else "update")
        assert have is None or item.version > have or (world.recalled(item.component) and item.version != have)


@given(worlds(circles=True))
def test_every_component_gets_one_reason_that_fits_what_it_is_offered(world: World) -> None:
    """L52, promise 3."""
    decision = world.decide()
    assert [reason.component for reason in decision.reasons] == list(world.installed)
    offers = offered(decision)
    for reason in decision.reasons:
        assert reason.detail
        assert (reason.code is Code.OFFERED) == (reason.component in offers)
        if reason.code is Code.OFFERED:
            assert reason.release == offers[reason.component]
        assert reason.release is None or reason.release.component == reason.component
        assert (reason.code is Code.UNKNOWN_COMPONENT) == (reason.component == "stranger")
        assert reason.changes_at is None or reason.changes_at > NOW


@given(worlds(circles=True), st.randoms(use_true_random=False))
def test_the_order_in_which_a_device_lists_its_components_does_not_matter(world: World, chance: Random) -> None:
    shuffled = list(world.device.components)
    chance.shuffle(shuffled)
    one = world.decide()
    other = replace(world, device=replace(world.device, components=tuple(shuffled))).decide()
    assert one.offers == other.offers
    assert one.universal == other.universal
    assert {(reason.component, reason.code, reason.release, reason.changes_at) for reason in one.reasons} == {
        (reason.component, reason.code, reason.release, reason.changes_at) for reason in other.reasons
    }


@given(worlds(circles=True), st.none() | st.uuids().map(str), st.floats(-400, 400))
def test_a_universal_answer_is_that_of_every_device_at_any_time(
    world: World, device_id: str | None, days: float
) -> None:
    """The server remembers such an answer for all devices that have the same (design §9)."""
    decision = world.decide()
    if decision.universal:
        other = replace(world, device=replace(world.device, device_id=device_id))
        assert other.decide(NOW + timedelta(days=days)) == decision


@given(worlds(circles=True))
def test_an_announced_change_is_a_change(world: World) -> None:
    """L52: at ``changes_at`` a ramp reaches the device; just before, nothing has changed yet."""
    ramps = [item.rollout for item in world.catalogue if item.rollout is not None]
    times = [reason.changes_at for reason in world.decide().reasons if reason.changes_at is not None]
    for at in times:
        assert any(
            rollout.start <= at <= rollout.start + timedelta(seconds=rollout.duration_seconds) for rollout in ramps
        )
    if times:
        assert world.decide(min(times) - timedelta(seconds=2)).offers == world.decide().offers


@given(worlds(circles=True))
def test_a_device_that_installs_what_it_is_offered_comes_to_rest(world: World) -> None:
    """No oscillation: after as many checks as there are releases, at the latest, nothing more is offered."""
    for _ in range(len(world.catalogue) + 1):
        offers = offered(world.decide())
        if not offers:
            break
        now_has = tuple(
            Installed(item.name, offers[item.name].version) if item.name in offers else item
            for item in world.device.components
        )
        world = replace(world, device=replace(world.device, components=now_has))
    assert not world.decide().offers
