"""Which of the files that claim to be one release is it: ledger, duplicates and recalls (L4, L7, L15). Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

import msgspec

from repo_server.core.model import FileState, Release
from repo_server.core.names import EXTENSIONS, printable
from repo_server.tree.groups import Group, Outcome
from repo_server.tree.treeio import FileIdentity
from repo_server.tree.walk import Fault

_NONE: Mapping[str, tuple[Fault, ...]] = MappingProxyType({})
_ORDER = {extension: rank for rank, extension in enumerate((*EXTENSIONS, ""))}


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What a release id came to."""

    release: Release | None = None
    """Goes into the catalogue."""
    identity: FileIdentity | None = None
    """Of its file; ``None``: a recall of a file that is gone or damaged."""
    faults: Mapping[str, tuple[Fault, ...]] = _NONE
    """Path of a group → what it shows."""
    missing: bool = True
    """There is no release, and nothing is wrong but that something is not there (L26)."""

    @property
    def broken(self) -> bool:
        """Whether there is no release because something is wrong."""
        problems = (fault for found in self.faults.values() for fault in found if fault.state is FileState.PROBLEM)
        return self.release is None and any(problems)

    @property
    def verified(self) -> bool:
        """Whether the release's bytes and signatures were checked, so that it belongs into the ledger."""
        return self.identity is not None


def settle(groups: Collection[Group], published: str | None) -> Claim:
    """Choose among the groups with one release id; ``published`` is the digest that the ledger has for it."""
    if len(groups) == 1:
        outcome = next(iter(groups)).outcome
        if outcome is not None and outcome.release is not None and published in {None, outcome.release.sha256}:
            return Claim(outcome.release, outcome.identity, missing=False)
    outcomes = {group.path: group.outcome for group in groups if group.outcome is not None}
    verified = [group for group in groups if (outcome := outcomes.get(group.path)) and outcome.release is not None]
    same = [group for group in verified if published in {None, _release(outcomes[group.path]).sha256}]
    best = min(same, key=_rank, default=None)
    faults = {path: _faults(path, outcome, published, best) for path, outcome in outcomes.items()}
    blocks = [outcome.block for _, outcome in sorted(outcomes.items()) if outcome.block is not None]
    if best is not None:
        outcome = outcomes[best.path]
        release = _release(outcome)
        if release.block is None and blocks:
            release = replace(release, block=blocks[0])
        return Claim(release, outcome.identity, faults, missing=False)
    recalled = _recalled(groups, published)
    if recalled is not None:
        # A recalled file may be taken away: that is no longer worth a word.
        faults = {
            path: tuple(item for item in found if item.state is FileState.PROBLEM) for path, found in faults.items()
        }
        return Claim(recalled, None, faults, missing=False)
    return Claim(faults=faults, missing=all(map(_is_missing, groups)))


def _is_missing(group: Group) -> bool:
    """Whether something is not there. What nobody may judge for want of a root is there all the same (L22, L26)."""
    return group.outcome.missing if group.outcome is not None else group.files.get("") is None


def _recalled(groups: Collection[Group], published: str | None) -> Release | None:
    """Keep a recalled release known although its file is gone or damaged: devices must be moved off it (L15)."""
    for group in sorted(groups, key=_rank):
        outcome = group.outcome
        if outcome is None or outcome.block is None:
            continue
        digest = published or outcome.claimed
        if digest is not None:
            return Release(group.name.id, group.path, outcome.size, digest, (), block=outcome.block)
    return None


def _faults(path: str, outcome: Outcome, published: str | None, best: Group | None) -> tuple[Fault, ...]:
    digest = outcome.release.sha256 if outcome.release is not None else outcome.actual
    if digest is None or (best is not None and best.path == path):
        return outcome.faults
    if best is not None and outcome.release is not None:
        message = f"{printable(best.path)} is the same release and stays; remove one of them"
        return (Fault(path, "duplicate_release", message),)
    if published is not None and digest != published:
        message = (
            f"its bytes have the SHA-256 {digest}, but this version was published as {published}; "
            "put the old file back or publish a new version"
        )
        return (Fault(path, "bytes_changed", message),)
    return outcome.faults


def _rank(group: Group) -> tuple[int, int, str]:
    return _ORDER[group.name.extension], len(group.path), group.path


def _release(outcome: Outcome) -> Release:
    if outcome.release is None:
        raise RuntimeError("only a verified outcome has a release")
    return outcome.release
