"""Snapshots of the catalogue as differences, so that a promotion costs what changed and not the tree. Pure."""

from __future__ import annotations

from types import MappingProxyType

from repo_server.core.catalogue import Catalogue
from repo_server.tree.live import ScanResult, Snapshot
from repo_server.workers.messages import News


def news(before: Snapshot | None, after: Snapshot) -> News:
    """Return what somebody who has ``before`` must be told."""
    catalogue, result = after.catalogue, after.result
    old = Catalogue() if before is None else before.catalogue
    identities = {} if before is None else before.result.identities
    # Objects are kept from scan to scan, so that comparing them by identity finds what changed.
    gone = tuple(release.path for release in old if catalogue.at(release.path) is None)
    added = tuple(release for release in catalogue if old.at(release.path) is not release)
    known = result.identities
    return News(
        after.generation,
        after.since,
        None if before is None else before.generation,
        gone,
        added,
        catalogue.config,
        None if before is not None and before.catalogue.policy is catalogue.policy else catalogue.policy,
        None if before is not None and before.result.problems is result.problems else result.problems,
        {path: identity for path, identity in known.items() if identities.get(path) is not identity},
        tuple(path for path in identities if path not in known),
    )


def apply(told: News, before: Snapshot | None) -> Snapshot:
    """Return the snapshot that the news make of the one before; raise ``ValueError`` if it is another one."""
    if told.after is None:
        before = None
    elif before is None or before.generation != told.after:
        have = "nothing" if before is None else f"generation {before.generation}"
        raise ValueError(f"the news change generation {told.after}, and here is {have}")
    base = ScanResult(Catalogue(), ()) if before is None else before.result
    policy = base.catalogue.policy if told.policy is None else told.policy
    catalogue = base.catalogue.changed(told.gone, told.added).under(told.config, policy)
    identities = dict(base.identities) | told.identities
    for path in told.unidentified:
        identities.pop(path, None)
    problems = base.problems if told.problems is None else told.problems
    return Snapshot(told.generation, ScanResult(catalogue, problems, MappingProxyType(identities)), told.since)
