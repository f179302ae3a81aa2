"""What the tree offers right now. Replacing it is one assignment, so readers need no lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from repo_server.core.catalogue import Catalogue
from repo_server.core.model import Problem
from repo_server.tree.treeio import FileIdentity


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What one look at the tree found."""

    catalogue: Catalogue
    problems: tuple[Problem, ...]
    """Pending files and problems, by path (L8)."""
    identities: Mapping[str, FileIdentity] = field(default_factory=lambda: MappingProxyType({}))
    """Path of a release → identity of the file whose digest was verified (L25)."""


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
