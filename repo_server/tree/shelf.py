"""Puts claims together to a catalogue: cycles left out, missing releases kept where L26 says so, changes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from repo_server.core.catalogue import Catalogue, copied
from repo_server.core.dependencies import cyclic
from repo_server.core.model import Platform, Release
from repo_server.core.policy import ChannelPolicy, TreeConfig
from repo_server.tree.claims import Claim
from repo_server.tree.live import Change, ScanResult
from repo_server.tree.problems import ProblemBook
from repo_server.tree.removal import Guard, Kept
from repo_server.tree.treeio import FileIdentity
from repo_server.tree.walk import Fault


@dataclass(frozen=True, slots=True)
class _Differences:
    """What changes in the result."""

    removed: list[str]
    """Paths, also of releases that are added again in another state."""
    added: list[Release]
    identified: dict[str, FileIdentity]
    unidentified: set[str]

    def applied(self, identities: Mapping[str, FileIdentity]) -> Mapping[str, FileIdentity]:
        """Return the identities after it; the same object if nothing changes."""
        if not self.identified and not self.unidentified:
            return identities
        changed = copied(identities)
        for path in self.unidentified:
            changed.pop(path, None)
        changed.update(self.identified)
        return MappingProxyType(changed)


@dataclass(slots=True)
class Shelf:
    """The claims in force and the result that they make."""

    problems: ProblemBook = field(default_factory=ProblemBook)
    guard: Guard = field(default_factory=Guard)
    _claims: dict[str, Claim] = field(default_factory=dict)
    _installable: dict[Platform, dict[str, Release]] = field(default_factory=dict)
    """Releases that are not recalled, by platform."""
    _cyclic: dict[Platform, frozenset[str]] = field(default_factory=dict)
    _visible: dict[str, Kept] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)
    _result: ScanResult = field(default_factory=lambda: ScanResult(Catalogue(), ()))

    def place(self, claims: Mapping[str, Claim], unreadable: frozenset[str], now: datetime) -> set[str]:
        """Take over new claims; return the releases whose place in the catalogue may have changed.

        ``unreadable`` are folders that could not be read: what was in them is not missing, it is kept (L26).
        """
        changed = set(claims)
        platforms: set[Platform] = set()
        for identifier, claim in claims.items():
            platforms |= self._take(identifier, claim)
            path = self.guard.last_path(identifier)
            if path is not None:
                self.guard.note(identifier, missing=claim.missing, readable=not _beneath(path, unreadable))
                if claim.broken:
                    self.guard.dismiss(identifier)
        for platform in platforms:
            before = self._cyclic.get(platform, frozenset())
            self._cyclic[platform] = frozenset(map(str, cyclic(self._installable[platform].values())))
            changed |= before ^ self._cyclic[platform]
        for identifier in changed:
            faults = self._faults(identifier)
            if faults or identifier in self.problems:
                self.problems.report(identifier, faults, now)
        return changed

    def known(self) -> set[str]:
        """Return the ids of all releases that there is something to say about."""
        return set(self._claims)

    def result(self, changed: set[str], rules: tuple[TreeConfig, ChannelPolicy] | None, now: datetime) -> ScanResult:
        """Return the result after these changes; the one before if there is no difference."""
        self._report_removal(now)
        kept = self.guard.kept()
        changed = changed | (kept ^ self._kept)
        self._kept = kept
        found = self._differences(changed)
        before = self._result
        catalogue = before.catalogue
        if found.removed or found.added:
            catalogue = catalogue.changed(found.removed, found.added)
        if rules is not None and (catalogue.config, catalogue.policy) != rules:
            catalogue = catalogue.under(*rules)
        identities = found.applied(before.identities)
        if identities is before.identities and catalogue is before.catalogue and before.problems is self.problems.all():
            return before
        gone = tuple(path for path in found.removed if catalogue.at(path) is None)
        change = Change(gone, tuple(found.added), found.identified, tuple(found.unidentified))
        self._result = ScanResult(catalogue, self.problems.all(), identities, followed=(before.token, change))
        return self._result

    def rebase(self) -> None:
        """Compare later removals with what is there now: a full scan has finished."""
        self.guard.rebase(dict(self._visible))

    def _take(self, identifier: str, claim: Claim) -> set[Platform]:
        """Put one claim in force; return the platforms where that may close or open a circle of requirements."""
        old = self._claims.get(identifier)
        if claim.faults or claim.release is not None:
            self._claims[identifier] = claim
        else:
            self._claims.pop(identifier, None)
        before = _installable(old)
        after = _installable(claim)
        if before is not None:
            del self._installable[before.id.platform][identifier]
        if after is not None:
            self._installable.setdefault(after.id.platform, {})[identifier] = after
        if (before is None) != (after is None) or (before and after and before.requires != after.requires):
            return {release.id.platform for release in (before, after) if release is not None}
        return set()

    def _in_a_circle(self, release: Release, identifier: str) -> bool:
        return identifier in self._cyclic.get(release.id.platform, ())

    def _faults(self, identifier: str) -> list[Fault]:
        claim = self._claims.get(identifier)
        if claim is None:
            return []
        faults = [fault for found in claim.faults.values() for fault in found]
        if claim.release is not None and self._in_a_circle(claim.release, identifier):
            wants = ", ".join(str(item) for item in claim.release.requires)
            message = f"it requires {wants}, which can only be installed after it; break the circle in one .meta"
            faults.append(Fault(claim.release.path, "requires_cycle", message))
        return faults

    def _report_removal(self, now: datetime) -> None:
        missing, known = self.guard.missing
        faults = []
        if self.guard.active:
            message = (
                f"{missing} of {known} releases are gone at once, so they stay in the catalogue; bring them back, "
                "or confirm with `repotool doctor --accept-removal`"
            )
            faults.append(Fault("", "mass_removal", message))
        self.problems.report("removal", faults, now)

    def _differences(self, changed: set[str]) -> _Differences:
        """Bring ``_visible`` up to date."""
        removed, added = [], []
        touched: list[tuple[Kept | None, Kept | None]] = []
        for identifier in changed:
            before, after = self._visible.get(identifier), self._wanted(identifier)
            if before == after:
                continue
            touched.append((before, after))
            if after is None:
                del self._visible[identifier]
            else:
                self._visible[identifier] = after
                self.guard.refresh(identifier, after)
            if before is not None and (after is None or after.release != before.release):
                removed.append(before.release.path)
            if after is not None and (before is None or after.release != before.release):
                added.append(after.release)
        lost = {before.release.path for before, _ in touched if before is not None}
        found = {
            after.release.path: after.identity
            for _, after in touched
            if after is not None and after.identity is not None
        }
        return _Differences(removed, added, found, lost - found.keys())

    def _wanted(self, identifier: str) -> Kept | None:
        if identifier in self._kept:
            return self.guard.release(identifier)
        claim = self._claims.get(identifier)
        if claim is None or claim.release is None or self._in_a_circle(claim.release, identifier):
            return None
        return Kept(claim.release, claim.identity)


def _installable(claim: Claim | None) -> Release | None:
    return claim.release if claim is not None and claim.release is not None and claim.release.block is None else None


def _beneath(path: str, folders: frozenset[str]) -> bool:
    return bool(folders) and ("" in folders or any(path.startswith(f"{folder}/") for folder in folders))
