"""Requirements between components: cycles and safe orders, against brute force (L13, L50, FR-UPD-007)."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from core.making import ARM, LINUX, release
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.dependencies import cyclic, safe_order, unmet
from repo_server.core.model import Platform, Release, ReleaseId
from repo_server.core.version import Version

NAMES = ["service", "ui", "probe"]
VERSIONS = ["1.0.0", "2.0.0", "3.0.0"]

requirement = st.builds("{} >= {}".format, st.sampled_from(NAMES), st.sampled_from(VERSIONS))
releases = st.builds(
    lambda component, version, requires, platform: release(component, version, *requires, platform=platform),
    st.sampled_from(NAMES),
    st.sampled_from(VERSIONS),
    st.lists(requirement, max_size=2, unique_by=lambda text: text.split()[0]),
    st.sampled_from([LINUX, LINUX, LINUX, ARM]),
)
graphs = st.lists(releases, max_size=7, unique_by=lambda item: item.id)


def served(wanting: Release, by: frozenset[Release]) -> bool:
    """Whether a set of releases serves every requirement but stepping stones."""
    return all(
        (need.name == wanting.component and need.min_version < wanting.version)
        or any(
            item.component == need.name and item.platform == wanting.platform and item.version >= need.min_version
            for item in by
        )
        for need in wanting.requires
    )


def brute_force_cycles(some: list[Release]) -> set[ReleaseId]:
    """Return what some set of releases can hold among itself, but no order can build up from nothing."""
    subsets = [frozenset(part) for size in range(len(some) + 1) for part in itertools.combinations(some, size)]
    holding = set().union(*(part for part in subsets if all(served(item, part) for item in part)))
    built: frozenset[Release] = frozenset()
    for _ in some:
        built |= {item for item in some if served(item, built)}
    return {item.id for item in holding - built}


@given(graphs)
def test_cycles_are_those_that_brute_force_finds(some: list[Release]) -> None:
    """L13."""
    assert cyclic(some) == brute_force_cycles(some)


@given(graphs, st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(some: list[Release], chance: Random) -> None:
    shuffled = list(some)
    chance.shuffle(shuffled)
    assert cyclic(shuffled) == cyclic(some)


def ids(some: list[Release]) -> set[str]:
    return {f"{item.component} {item.version}" for item in some}


@pytest.mark.parametrize(
    ("releases", "in_a_circle"),
    [
        pytest.param([], set(), id="an empty tree has none"),
        pytest.param([release("ui", "1.0.0", "probe >= 9.0.0")], set(), id="what is missing is not a circle"),
        pytest.param(
            [release("ui", "1.0.0", "probe >= 1.0.0"), release("probe", "1.0.0", "ui >= 1.0.0")],
            {"ui 1.0.0", "probe 1.0.0"},
            id="two that wait for each other",
        ),
        pytest.param(
            [
                release("ui", "2.0.0", "probe >= 2.0.0"),
                release("probe", "2.0.0", "ui >= 2.0.0"),
                release("ui", "1.0.0"),
            ],
            {"ui 2.0.0", "probe 2.0.0"},
            id="an older release that is too old does not help",
        ),
        pytest.param(
            [
                release("ui", "1.1.0", "probe >= 1.0.0"),
                release("probe", "1.1.0", "ui >= 1.0.0"),
                release("ui", "1.0.0"),
                release("probe", "1.0.0"),
            ],
            set(),
            id="an older release breaks the circle",
        ),
        pytest.param([release("ui", "2.0.0", "ui >= 2.0.0")], {"ui 2.0.0"}, id="one that waits for itself"),
        pytest.param([release("ui", "2.0.0", "ui >= 1.5.0")], set(), id="a stepping stone that has left the tree"),
        pytest.param(
            [release("ui", "2.0.0", "ui >= 1.5.0", "probe >= 1.0.0"), release("probe", "1.0.0", "ui >= 2.0.0")],
            {"ui 2.0.0", "probe 1.0.0"},
            id="a stepping stone does not hide a circle",
        ),
        pytest.param(
            [
                release("ui", "1.0.0", "probe >= 1.0.0"),
                release("probe", "1.0.0", "service >= 1.0.0"),
                release("service", "1.0.0", "ui >= 1.0.0"),
                release("updater", "1.0.0", "ui >= 1.0.0"),
            ],
            {"ui 1.0.0", "probe 1.0.0", "service 1.0.0", "updater 1.0.0"},
            id="a circle of three, and one that waits for it",
        ),
        pytest.param(
            [release("ui", "1.0.0", "probe >= 1.0.0"), release("probe", "1.0.0", "ui >= 1.0.0", platform=ARM)],
            set(),
            id="platforms are worlds of their own",
        ),
    ],
)
def test_circles_in_a_tree(releases: list[Release], in_a_circle: set[str]) -> None:
    """L13."""
    found = cyclic(releases)
    assert ids([item for item in releases if item.id in found]) == in_a_circle


def test_unmet_requirements_are_named() -> None:
    wanting = release("ui", "1.0.0", "probe >= 2.0.0", "service >= 1.0.0", "updater >= 1.0.0")
    have = {"probe": Version("1.9.9"), "service": Version("1.0.0")}
    assert [str(item) for item in unmet(wanting, have.get)] == ["probe >= 2.0.0", "updater >= 1.0.0"]


# Order

chosen = st.lists(releases, max_size=3, unique_by=lambda item: item.component).map(
    lambda some: {item.component: item for item in some}
)
had = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VERSIONS).map(Version))


def installable_in(order: list[Release], chosen: dict[str, Release], has: dict[str, Version]) -> bool:
    """Whether each release finds what it requires of the chosen ones there, when its turn comes."""
    state: dict[str, Version | None] = dict(has)
    for item in order:
        for need in item.requires:
            have = state.get(need.name)
            met = have is not None and have >= need.min_version
            if need.name in chosen and need.name != item.component and not met:
                return False
        state[item.component] = item.version
    return True


def serve_each_other(chosen: dict[str, Release]) -> bool:
    return all(
        chosen[need.name].version >= need.min_version
        for item in chosen.values()
        for need in item.requires
        if need.name in chosen and need.name != item.component
    )


@given(chosen.filter(serve_each_other), had)
def test_an_order_is_found_exactly_when_there_is_one(chosen: dict[str, Release], has: dict[str, Version]) -> None:
    """L50: requirements first; nothing is refused that brute force could install."""
    ordered, stuck = safe_order(chosen, NAMES, has.get)
    orders = itertools.permutations(chosen.values())
    assert (not stuck) == any(installable_in(list(order), chosen, has) for order in orders)
    assert installable_in(ordered, chosen, has)
    assert not {item.component for item in ordered} & {item.component for item in stuck}
    if not stuck:
        assert {item.component: item for item in ordered} == chosen


def test_requirements_come_first_and_the_preference_decides_among_equals() -> None:
    """L50: and the updater is the last, also after components that only ``repo.toml`` names."""
    some = {
        "updater": release("updater", "2.0.0"),
        "service": release("service", "2.0.0", "probe >= 2.0.0"),
        "probe": release("probe", "2.0.0"),
        "sensor": release("sensor", "2.0.0"),
    }
    ordered, stuck = safe_order(some, ["service", "ui", "probe", "updater"])
    assert ([item.component for item in ordered], stuck) == (["probe", "service", "sensor", "updater"], [])


def test_a_requirement_comes_first_even_where_the_device_could_do_without() -> None:
    """L50: the device has probe 1 and the service asks for no more; still probe 2 goes first."""
    some = {"service": release("service", "2.0.0", "probe >= 1.0.0"), "probe": release("probe", "2.0.0")}
    ordered, _ = safe_order(some, ["service", "probe"], {"probe": Version("1.0.0")}.get)
    assert [item.component for item in ordered] == ["probe", "service"]


def test_only_the_circle_itself_is_stuck_and_not_what_waits_for_it() -> None:
    some = {
        "service": release("service", "2.0.0", "ui >= 1.0.0", "service >= 1.0.0"),
        "ui": release("ui", "2.0.0", "probe >= 2.0.0"),
        "probe": release("probe", "2.0.0", "ui >= 2.0.0"),
        "updater": release("updater", "2.0.0"),
    }
    ordered, stuck = safe_order(some, NAMES)
    assert [item.component for item in ordered] == ["updater"]
    assert {item.component for item in stuck} == {"ui", "probe"}


def test_platforms_are_written_and_ordered_as_they_are_named() -> None:
    assert str(LINUX) == "linux-amd64"
    assert sorted([ARM, LINUX]) == [LINUX, ARM]
    assert Platform(LINUX.os, LINUX.arch) == LINUX
