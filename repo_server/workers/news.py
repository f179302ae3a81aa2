"""Snapshots of the catalogue as differences, so that a promotion costs what changed and not the tree. Pure."""

from __future__ import annotations

from types import MappingProxyType

from repo_server.core.catalogue import Catalogue, copied
from repo_server.tree.live import ScanResult, Snapshot
from repo_server.workers.messages import News

_NOTHING = ScanResult(Catalogue(), ())


def news(before: Snapshot | None, after: Snapshot) -> News:
    """Return what somebody who has ``before`` must be told."""
    catalogue, result = after.catalogue, after.result
    change = result.since(_NOTHING if before is None else before.result)
    return News(
        after.generation,
        after.since,
        None if before is None else before.generation,
        change.gone,
        change.added,
        catalogue.config,
        None if before is not None and before.catalogue.policy is catalogue.policy else catalogue.policy,
        None if before is not None and before.result.problems is result.problems else result.problems,
        dict(change.identities),
        change.unidentified,
    )


def apply(told: News, before: Snapshot | None) -> Snapshot:
    """Return the snapshot that the news make of the one before; raise ``ValueError`` if it is another one."""
    if told.after is None:
        before = None
    elif before is None or before.generation != told.after:
        have = "nothing" if before is None else f"generation {before.generation}"
        raise ValueError(f"the news change generation {told.after}, and here is {have}")
    base = _NOTHING if before is None else before.result
    policy = base.catalogue.policy if told.policy is None else told.policy
    catalogue = base.catalogue.changed(told.gone, told.added).under(told.config, policy)
    identities = copied(base.identities)
    identities.update(told.identities)
    for path in told.unidentified:
        identities.pop(path, None)
    problems = base.problems if told.problems is None else told.problems
    return Snapshot(told.generation, ScanResult(catalogue, problems, MappingProxyType(identities)), told.since)
