"""Which offers are carried out: PURE. What is left out has a reason (promise 3)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from agent.codes import Code
from agent.quarantine import Quarantine
from repo_server.core.errors import VersionInvalid
from repo_server.core.model import UPDATER
from repo_server.core.version import Version
from repo_server.core.wire import Update

_FOR_GOOD = frozenset({Code.QUARANTINED, Code.NOT_SUPPORTED})
"""Why a release itself is left out, and with it what requires it."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Skipped:
    """An offer that is left out."""

    update: Update
    code: Code
    message: str

    @property
    def waits(self) -> bool:
        """Whether it comes by itself, as soon as nobody works with what it replaces."""
        return self.code is Code.SESSION_ACTIVE


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done, in the server's order but the updater last, and what is not."""

    updates: tuple[Update, ...]
    skipped: tuple[Skipped, ...]
    later: tuple[Update, ...] = ()
    """What requires the updater that comes now: the next cycle, which is that updater's, does it."""


def make_plan(
    offers: Iterable[Update],
    installed: Mapping[str, Version],
    quarantine: Quarantine,
    requested: Collection[str],
    waiting: Mapping[str, str] = MappingProxyType({}),
    unable: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Leave out what is malformed, quarantined or held, and then what needs something that is left out (FR-UPD-007).

    ``waiting``: component → why its update waits for now (FR-CMP-007); ``unable``: why this machine cannot replace it.

    Names, versions and digests of what is chosen are safe to make paths of, whatever the server sent.
    """
    chosen: list[Update] = []
    skipped: list[Skipped] = []
    for update in offers:
        named = frozenset(one.name for one in chosen)
        reason = _malformed(update, requested, named) or _reason(update, quarantine, waiting, unable)
        if reason is None:
            chosen.append(update)
        else:
            skipped.append(reason)
    while True:
        late = frozenset(one.update.name for one in skipped if one.waits)
        failed = {one.update.name: one.code for one in skipped if one.code in _FOR_GOOD}
        lacking = [missing for update in chosen if (missing := _lacking(update, chosen, installed, late, failed))]
        if not lacking:
            return _updater_last(chosen, tuple(skipped), installed)
        skipped += lacking
        gone = {item.update.name for item in lacking}
        chosen = [update for update in chosen if update.name not in gone]


def _updater_last(chosen: list[Update], skipped: tuple[Skipped, ...], installed: Mapping[str, Version]) -> Plan:
    """Put the updater at the end; what cannot come before it waits for the next cycle (FR-SUP-001)."""
    before = [update for update in chosen if update.name != UPDATER]
    updater = [update for update in chosen if update.name == UPDATER]
    later: list[Update] = []
    while waiting := [update for update in before if updater and _lacking(update, before, installed)]:
        later += waiting
        before = [update for update in before if update not in waiting]
    ordered = tuple(update for update in chosen if update in later)
    return Plan((*before, *updater), skipped, ordered)


def _malformed(update: Update, requested: Collection[str], named: frozenset[str]) -> Skipped | None:
    if update.name not in requested:
        return Skipped(update, Code.NOT_REQUESTED, f"an offer for {update.name!r:.80}, which was not asked for")
    if update.name in named:
        return Skipped(update, Code.OFFER_INVALID, f"a second offer for {update.name}")
    if not _SHA256.fullmatch(update.hash_sha256):
        return Skipped(update, Code.OFFER_INVALID, f"{update.name}: {update.hash_sha256!r:.80} is no SHA-256")
    try:
        Version(update.version)
    except VersionInvalid as error:
        return Skipped(update, Code.OFFER_INVALID, f"{update.name}: {error.message}")
    return None


def _reason(
    update: Update, quarantine: Quarantine, waiting: Mapping[str, str], unable: Mapping[str, str]
) -> Skipped | None:
    held = quarantine.holds(update.name)
    if held is not None:
        message = f"{update.name} is left alone since its rollback failed ({held.message}); repair it, then run: "
        return Skipped(update, Code.ROLLBACK_FAILED, f"{message}commandit-updater checknow --retry")
    if update.name in unable:
        return Skipped(update, Code.NOT_SUPPORTED, f"{update.name} {update.version}: {unable[update.name]}")
    tried = quarantine.skips(update.name, update.version, update.hash_sha256)
    if tried is not None:
        message = f"{update.name} {update.version} failed {len(tried.attempts)} times and is skipped until another "
        return Skipped(update, Code.QUARANTINED, f"{message}release appears; to try again: checknow --retry")
    return Skipped(update, Code.SESSION_ACTIVE, waiting[update.name]) if update.name in waiting else None


def _lacking(
    update: Update,
    chosen: list[Update],
    installed: Mapping[str, Version],
    late: Collection[str] = (),
    failed: Mapping[str, Code] = MappingProxyType({}),
) -> Skipped | None:
    coming = {other.name: other.version for other in chosen if other.name != update.name}
    for needed in update.dependencies:
        try:
            have = Version(coming[needed.name]) if needed.name in coming else installed.get(needed.name)
            if have is not None and have >= Version(needed.min_version):
                continue
        except VersionInvalid as error:
            return Skipped(update, Code.OFFER_INVALID, f"{update.name} {update.version}: {error.message}")
        what = f"{needed.name} {have}" if have else f"no {needed.name}"
        message = f"{update.name} {update.version} requires {needed.name} >= {needed.min_version}; there is {what}"
        if needed.name in late:
            return Skipped(update, Code.SESSION_ACTIVE, f"{message} until a user session ends")
        return Skipped(update, failed.get(needed.name, Code.OFFER_INVALID), message)
    return None
