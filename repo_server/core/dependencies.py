"""Requirements between components: what can be installed at all, and in which order (L13, FR-UPD-007)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from repo_server.core.model import UPDATER, Platform, Release, ReleaseId, Requirement
from repo_server.core.version import Version

Ceilings = dict[tuple[Platform, str], Version]


def cyclic(releases: Iterable[Release]) -> frozenset[ReleaseId]:
    """Return the releases that could only be installed after themselves.

    A release is installable when each of its requirements is met by an installable release. The least set that
    satisfies this leaves out what waits for itself; the greatest set keeps it. The difference are the cycles;
    a release that requires something the tree does not have is in neither. A stepping stone (its own component, at a
    lower version) is a matter of what a device has, and may have left the tree long ago: it counts as met.
    """
    everything = list(releases)
    demanding = [release for release in everything if _demands(release)]
    if not demanding:
        return frozenset()
    free = [release for release in everything if not _demands(release)]
    return frozenset(_installable_at_most(free, demanding) - _installable_at_least(free, demanding))


def unmet(release: Release, version_of: Callable[[str], Version | None]) -> tuple[Requirement, ...]:
    """Return a release's requirements that ``version_of`` (component → version) does not meet."""

    def met(requirement: Requirement) -> bool:
        have = version_of(requirement.name)
        return have is not None and have >= requirement.min_version

    return tuple(requirement for requirement in release.requires if not met(requirement))


def safe_order(
    chosen: Mapping[str, Release],
    preference: Sequence[str],
    has: Callable[[str], Version | None] = lambda _: None,
) -> tuple[list[Release], list[Release]]:
    """Order releases so that each comes after those it requires; also return those that only a circle serves.

    What the device ``has`` (component → version) already serves a requirement where no order can. Among equals the
    order of ``preference`` (component names) counts, and the updater comes last. The second list is empty, or every
    release in it can only be installed after itself; the first is then what can be installed without them.
    """
    rank = {name: index for index, name in enumerate(preference)} | {UPDATER: len(chosen) + len(preference)}
    waiting = sorted(chosen.values(), key=lambda release: (rank.get(release.component, len(rank)), release.component))
    ordered: list[Release] = []
    while waiting:
        names = {release.component for release in waiting}
        ready = next((item for item in waiting if not _waits_for(item, names)), None)
        if ready is None:
            lacking = {item.component: {need.name for need in unmet(item, has)} - {item.component} for item in waiting}
            ready = next((item for item in waiting if not _waits_for(item, names & lacking[item.component])), None)
        if ready is None:
            return ordered, _in_circles(waiting, lacking)
        waiting.remove(ready)
        ordered.append(ready)
    return ordered, []


def _waits_for(release: Release, names: AbstractSet[str]) -> bool:
    return any(item.name in names and item.name != release.component for item in release.requires)


def _in_circles(waiting: list[Release], lacking: Mapping[str, AbstractSet[str]]) -> list[Release]:
    """Return the releases that are reached from themselves; the others only wait for one of these."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        new = set(lacking[start])
        while new:
            found |= new
            new = {name for item in new for name in lacking.get(item, ())} - found
        return found

    return [release for release in waiting if release.component in reached(release.component)]


def _installable_at_least(free: list[Release], demanding: list[Release]) -> set[ReleaseId]:
    ceilings: Ceilings = {}
    for release in free:
        _raise(ceilings, release)
    found: set[ReleaseId] = set()
    waiting = demanding
    while True:
        ready = [release for release in waiting if _met(release, ceilings)]
        if not ready:
            return found
        for release in ready:
            _raise(ceilings, release)
        found |= {release.id for release in ready}
        waiting = [release for release in waiting if release.id not in found]


def _installable_at_most(free: list[Release], demanding: list[Release]) -> set[ReleaseId]:
    kept = demanding
    while True:
        ceilings: Ceilings = {}
        for release in (*free, *kept):
            _raise(ceilings, release)
        staying = [release for release in kept if _met(release, ceilings)]
        if len(staying) == len(kept):
            return {release.id for release in kept}
        kept = staying


def _demands(release: Release) -> list[Requirement]:
    return [item for item in release.requires if not _is_stepping_stone(item, release)]


def _is_stepping_stone(requirement: Requirement, release: Release) -> bool:
    return requirement.name == release.component and requirement.min_version < release.version


def _met(release: Release, ceilings: Ceilings) -> bool:
    missing = unmet(release, lambda name: ceilings.get((release.platform, name)))
    return all(_is_stepping_stone(item, release) for item in missing)


def _raise(ceilings: Ceilings, release: Release) -> None:
    key = (release.platform, release.component)
    if key not in ceilings or release.version > ceilings[key]:
        ceilings[key] = release.version
