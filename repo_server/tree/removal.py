"""The guard against losing most releases at once: an unmounted disk is not a decision (L26). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from repo_server.core.model import Release
from repo_server.tree.treeio import FileIdentity

MARKER = ".accept-removal"
"""Written at the tree's root by ``repotool doctor --accept-removal``; the scanner takes it away."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A release as it was when it was last seen."""

    release: Release
    identity: FileIdentity | None


@dataclass(slots=True)
class Guard:
    """Compares with the last full scan, so that a removal in many small steps counts as one.

    Only what is missing counts: a release that has become a problem is dropped at once, however many do.
    """

    _baseline: dict[str, Kept] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)
    _held: set[str] = field(default_factory=set)

    def note(self, identifier: str, *, missing: bool, readable: bool) -> None:
        """Say whether a release is missing, and whether the place where it was can be read at all."""
        self._missing.discard(identifier)
        self._held.discard(identifier)
        if missing and identifier in self._baseline:
            (self._missing if readable else self._held).add(identifier)

    def dismiss(self, identifier: str) -> None:
        """Forget a release that has become a problem: should it go missing as well, it is not brought back."""
        self._baseline.pop(identifier, None)
        self._missing.discard(identifier)
        self._held.discard(identifier)

    def last_path(self, identifier: str) -> str | None:
        """Return where a release was at the last full scan."""
        kept = self._baseline.get(identifier)
        return kept.release.path if kept is not None else None

    @property
    def active(self) -> bool:
        """Whether more than half of the releases are missing."""
        return 2 * len(self._missing) > len(self._baseline)

    @property
    def missing(self) -> tuple[int, int]:
        """How many releases are missing, of how many."""
        return len(self._missing), len(self._baseline)

    @property
    def absent(self) -> frozenset[str]:
        """Releases of the last full scan that are not there, whether or not they are kept."""
        return frozenset(self._missing | self._held)

    def kept(self) -> set[str]:
        """Return the missing releases that stay in the catalogue."""
        return self._held | self._missing if self.active else set(self._held)

    def release(self, identifier: str) -> Kept:
        """Return a release that is kept."""
        return self._baseline[identifier]

    def refresh(self, identifier: str, now: Kept) -> None:
        """Remember the newest state of a release: a recall must not be forgotten because the disk went after it."""
        if identifier in self._baseline:
            self._baseline[identifier] = now

    def accept(self) -> None:
        """Forget what is missing: the operator says that it is gone for good."""
        for identifier in self._missing:
            del self._baseline[identifier]
        self._missing = set()

    def rebase(self, present: dict[str, Kept]) -> None:
        """Compare with these from now on; those that are kept must be among them."""
        self._baseline = present
        self._missing &= present.keys()
        self._held &= present.keys()
