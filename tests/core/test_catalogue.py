"""The catalogue: replaced whole, and a change gives what building it anew would give."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from core.making import ARM, LINUX, MAC, catalogue, release
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.catalogue import Catalogue
from repo_server.core.model import Block, Channel, Meta, Release, ReleaseId
from repo_server.core.policy import ChannelPolicy, TreeConfig
from repo_server.core.version import Version

releases = st.builds(
    lambda component, version, platform, channel, folder, blocked: release(
        component, version, platform=platform, channel=channel, folder=folder, blocked=blocked
    ),
    st.sampled_from(["service", "ui"]),
    st.sampled_from(["1.0.0", "1.1.0-rc.1", "1.1.0", "1.10.0", "1.9.0"]),
    st.sampled_from([LINUX, ARM]),
    st.sampled_from(Channel),
    st.sampled_from(["", "a/", "b/"]),
    st.none() | st.just("bad"),
)
sets_of_releases = st.lists(releases, max_size=12, unique_by=lambda item: item.id)


@given(sets_of_releases, sets_of_releases, st.randoms(use_true_random=False))
def test_a_change_gives_what_building_anew_would_give(
    before: list[Release], after: list[Release], chance: Random
) -> None:
    """Whatever was added, removed, moved, promoted or recalled."""
    removed = [item.path for item in before if item not in after] + ["never/was-there"]
    added = [item for item in after if item not in before]
    chance.shuffle(removed)
    chance.shuffle(added)
    changed = catalogue(before).changed(removed, added)
    assert changed == catalogue(after)
    assert set(changed) == set(after)
    assert len(changed) == len(after)
    assert changed.platforms() == {item.platform for item in after}


@given(sets_of_releases)
def test_every_release_is_found_by_platform_path_and_identity(some: list[Release]) -> None:
    made = catalogue(some)
    for item in some:
        assert made.at(item.path) == item
        assert made.find(item.id) == item
        assert item in made.releases(item.platform, item.component)
    for platform in (LINUX, ARM, MAC):
        for component in ("service", "ui", "probe"):
            group = made.releases(platform, component)
            assert [item.version for item in group] == sorted((item.version for item in group), reverse=True)
            assert all((item.platform, item.component) == (platform, component) for item in group)


def test_a_changed_catalogue_leaves_the_old_one_as_it_was() -> None:
    first = release("service", "1.0.0")
    old = catalogue([first])
    new = old.changed([first.path], [release("service", "2.0.0")])
    assert list(old) == [first]
    assert [str(item.version) for item in new] == ["2.0.0"]
    assert old.changed([], []) == old


def test_a_release_that_moves_to_another_folder_stays_one_release() -> None:
    """L1."""
    here, there = release("service", "1.0.0"), release("service", "1.0.0", folder="2026/q4/")
    assert list(catalogue([here]).changed([here.path], [there])) == [there]


def test_two_files_that_change_places_are_both_found() -> None:
    """An order of additions in which a path is in use until later."""
    one, two = release("service", "1.0.0"), release("service", "2.0.0")
    swapped = [replace(one, path=two.path), replace(two, path=one.path)]
    assert set(catalogue([one, two]).changed([], swapped)) == set(swapped)


def test_a_promoted_release_replaces_itself() -> None:
    beta = release("service", "1.0.0", channel="beta")
    stable = replace(beta, channel=Channel.STABLE)
    assert list(catalogue([beta]).changed([], [stable])) == [stable]


def test_one_identity_or_one_path_twice_is_a_programming_error() -> None:
    one = release("service", "1.0.0")
    with pytest.raises(RuntimeError, match="twice"):
        catalogue([one, release("service", "1.0.0", folder="a/")])
    with pytest.raises(RuntimeError, match="twice"):
        catalogue([one, one])
    with pytest.raises(RuntimeError, match="twice"):
        catalogue([one, replace(release("service", "2.0.0"), path=one.path)])


def test_the_operators_decisions_can_change_under_the_same_releases() -> None:
    made = catalogue([release("service", "1.0.0")])
    config, policy = TreeConfig(product="commandit"), ChannelPolicy(default=Channel.BETA)
    other = made.under(config, policy)
    assert (other.config, other.policy, list(other)) == (config, policy, list(made))
    assert other.changed([], []).config is config


def test_an_empty_catalogue_offers_nothing() -> None:
    empty = Catalogue()
    assert (len(empty), list(empty), empty.platforms()) == (0, [], frozenset())
    assert empty.at("x") is None
    assert empty.find(ReleaseId("service", Version("1.0.0"), LINUX)) is None


def test_a_release_says_its_parts() -> None:
    item = replace(release("service", "1.0.0", "probe >= 1.0.0", folder="a/b/"), block=Block("bad"))
    assert item.filename == "service-linux-amd64-1.0.0.tar.gz"
    assert (item.component, str(item.version), item.platform) == ("service", "1.0.0", LINUX)
    assert item.requires == item.meta.requires != Meta().requires
