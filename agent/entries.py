"""What an archive's entry may be and be called; the same rules for tar and zip (L41)."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from agent.codes import Code
from agent.errors import PackageRefused
from repo_server.core.entrynames import ArchiveLimits, folded, path_fault
from repo_server.core.model import Os
from repo_server.core.names import printable

PIECE = 256 * 1024


class Kind(enum.StrEnum):
    """What a package may contain."""

    FILE = "file"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as the archive names it; not checked yet."""

    name: str
    """Without the ``/`` at the end of a folder's name."""
    kind: Kind
    size: int
    """Bytes that follow; 0 for folders."""
    mode: int | None
    """Permission bits, ``None`` if the archive carries none."""


Member: TypeAlias = tuple[Entry, Iterator[bytes]]
"""An entry and its bytes, exactly ``size`` of them; they must be taken before the next member is."""


class Names:
    """The names that an archive has used so far."""

    def __init__(self, limits: ArchiveLimits, os: Os) -> None:
        self._limits = limits
        self._os = os
        self._seen: dict[str, tuple[str, Kind]] = {}
        self._explicit: set[str] = set()

    def admit(self, entry: Entry) -> tuple[str, ...]:
        """Return the entry's path in parts; raise ``PackageRefused`` if the name or a clash with another is forbidden.

        Two names that some file system takes for one are a clash: other case, other Unicode form.
        """
        parts = safe_parts(entry.name, self._limits, self._os)
        for depth in range(1, len(parts)):
            self._add("/".join(parts[:depth]), Kind.FOLDER)
        key = self._add(entry.name, entry.kind)
        if key in self._explicit:
            raise forbidden(entry.name, "is in the archive twice")
        self._explicit.add(key)
        return parts

    def has_folder(self, path: str) -> bool:
        """Whether a folder of exactly this name is in the archive, by itself or because something is in it."""
        return self._seen.get(folded(path)) == (path, Kind.FOLDER)

    def _add(self, path: str, kind: Kind) -> str:
        key = folded(path)
        known = self._seen.setdefault(key, (path, kind))
        if known[0] != path:
            raise forbidden(path, f"and {printable(known[0])} are one name on some file systems")
        if known[1] is not kind:
            raise forbidden(path, f"is a {known[1]} and a {kind}")
        if kind is Kind.FILE and key in self._explicit:
            raise forbidden(path, "is in the archive twice")
        return key


def safe_parts(name: str, limits: ArchiveLimits, os: Os) -> tuple[str, ...]:
    """Split a path that is safe on every file system we install to; raise ``PackageRefused`` (L41)."""
    why = path_fault(name, os, limits)
    if why is not None:
        raise forbidden(name, why)
    return tuple(name.split("/"))


def forbidden(name: str, why: str) -> PackageRefused:
    """Return the refusal of an entry."""
    return PackageRefused(Code.UNPACK_FORBIDDEN, f"the archive's entry {printable(name)!r:.300} {why}")


def damaged(why: str) -> PackageRefused:
    """Return the refusal of an archive that readers could take for different things, or that is cut off."""
    return PackageRefused(Code.ARCHIVE_DAMAGED, f"the archive {why}; pack it with repotool pack")


def bomb(why: str) -> PackageRefused:
    """Return the refusal of an archive that is too much."""
    return PackageRefused(Code.BOMB, f"the archive {why}")
