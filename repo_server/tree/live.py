"""What the tree offers right now. Replacing it is one assignment, so readers need no lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from repo_server.core.catalogue import Catalogue
from repo_server.core.model import Problem, Release
from repo_server.tree.treeio import FileIdentity


@dataclass(frozen=True, slots=True)
class Change:
    """What one result has that another had not; config, policy and problems are compared as they are."""

    gone: tuple[str, ...]
    """Paths that have no release any more."""
    added: tuple[Release, ...]
    """Also those that are other than before."""
    identities: Mapping[str, FileIdentity]
    """Of files that are new, or were verified again."""
    unidentified: tuple[str, ...]
    """Paths that have no identity any more."""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What one look at the tree found."""

    catalogue: Catalogue
    problems: tuple[Problem, ...]
    """Pending files and problems, by path (L8)."""
    identities: Mapping[str, FileIdentity] = field(default_factory=lambda: MappingProxyType({}))
    """Path of a release → identity of the file whose digest was verified (L25)."""
    token: object = field(default_factory=object, compare=False, repr=False)
    """Names this result, for the next."""
    followed: tuple[object, Change] | None = field(default=None, compare=False, repr=False)
    """``token`` of the result before, and the change since."""

    def since(self, before: ScanResult) -> Change:
        """Return what is other than in an earlier result; costs nothing where that is the one before (design §9)."""
        if before is self:
            return Change((), (), {}, ())
        if self.followed is not None and self.followed[0] is before.token:
            return self.followed[1]
        old, new = before.catalogue, self.catalogue
        known = before.identities
        return Change(
            tuple(release.path for release in old if new.at(release.path) is None),
            # Objects are kept from scan to scan, so that comparing them by identity finds what changed.
            tuple(release for release in new if old.at(release.path) is not release),
            {path: identity for path, identity in self.identities.items() if known.get(path) is not identity},
            tuple(path for path in known if path not in self.identities),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A scan's result under a number that grows with every change."""

    generation: int
    result: ScanResult
    since: datetime

    @property
    def catalogue(self) -> Catalogue:
        """The releases."""
        return self.result.catalogue


class Live:
    """Holds the current snapshot."""

    def __init__(self) -> None:
        self._current: Snapshot | None = None

    @property
    def ready(self) -> bool:
        """Whether a first scan has finished."""
        return self._current is not None

    @property
    def current(self) -> Snapshot:
        """The snapshot in force; asking before the first scan has finished is a wrong call order."""
        if self._current is None:
            raise RuntimeError("no scan has finished yet; ask `ready` first")
        return self._current

    def put(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force that another process numbered."""
        self._current = snapshot

    def replace(self, result: ScanResult, now: datetime) -> Snapshot:
        """Put a scan's result in force; the generation only grows when something changed."""
        before = self._current
        if before is not None and before.result == result:
            return before
        self._current = Snapshot(1 if before is None else before.generation + 1, result, now)
        return self._current
