"""What an archive's entry may be and be called; the same rules for tar and zip (L41)."""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from agent.codes import Code
from agent.errors import PackageRefused
from repo_server.core.model import Os
from repo_server.core.names import printable

MAX_SEGMENT_BYTES = 255
PIECE = 256 * 1024

_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?: *\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_NOT_ON_WINDOWS = frozenset('<>:"|?*')


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """Caps; an archive above one of them is refused as soon as that is seen (code BOMB)."""

    max_entries: int = 100_000
    max_total_bytes: int = 8 * 1024**3
    max_file_bytes: int = 4 * 1024**3
    max_ratio: int = 200
    """Unpacked bytes per byte of the archive; counts from ``ratio_from_bytes`` on."""
    ratio_from_bytes: int = 16 * 1024**2
    max_path_bytes: int = 512
    max_depth: int = 32

    def most_bytes_from(self, archive_bytes: int) -> int:
        """Return how many bytes an archive of this size may unpack to."""
        return min(self.max_total_bytes, max(self.ratio_from_bytes, self.max_ratio * archive_bytes))


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

    def __init__(self, limits: UnpackLimits, os: Os) -> None:
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
        return self._seen.get(_folded(path)) == (path, Kind.FOLDER)

    def _add(self, path: str, kind: Kind) -> str:
        key = _folded(path)
        known = self._seen.setdefault(key, (path, kind))
        if known[0] != path:
            raise forbidden(path, f"and {printable(known[0])} are one name on some file systems")
        if known[1] is not kind:
            raise forbidden(path, f"is a {known[1]} and a {kind}")
        if kind is Kind.FILE and key in self._explicit:
            raise forbidden(path, "is in the archive twice")
        return key


def safe_parts(name: str, limits: UnpackLimits, os: Os) -> tuple[str, ...]:
    """Split a path that is safe on every file system we install to; raise ``PackageRefused`` (L41)."""
    if len(name.encode(errors="surrogateescape")) > limits.max_path_bytes:
        raise forbidden(name[:120], f"is longer than {limits.max_path_bytes} bytes")
    parts = tuple(name.split("/"))
    if len(parts) > limits.max_depth:
        raise forbidden(name, f"lies deeper than {limits.max_depth} folders")
    for part in parts:
        why = _unsafe(part, os)
        if why is not None:
            raise forbidden(name, why)
    return parts


def forbidden(name: str, why: str) -> PackageRefused:
    """Return the refusal of an entry."""
    return PackageRefused(Code.UNPACK_FORBIDDEN, f"the archive's entry {printable(name)!r:.300} {why}")


def damaged(why: str) -> PackageRefused:
    """Return the refusal of an archive that readers could take for different things, or that is cut off."""
    return PackageRefused(Code.ARCHIVE_DAMAGED, f"the archive {why}; pack it with repotool pack")


def bomb(why: str) -> PackageRefused:
    """Return the refusal of an archive that is too much."""
    return PackageRefused(Code.BOMB, f"the archive {why}")


def _unsafe(part: str, os: Os) -> str | None:
    if part in {"", ".", ".."}:
        return "is absolute or has an empty, . or .. part"
    if "\\" in part:
        return "has a backslash"
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for char in part):
        return "has control, text-direction or unassigned characters, or is not UTF-8"
    if part[-1] in ". " or part[0] == " ":
        return "has a part that begins with a blank or ends with a blank or dot"
    if len(part.encode()) > MAX_SEGMENT_BYTES:
        return f"has a part longer than {MAX_SEGMENT_BYTES} bytes"
    if _RESERVED.fullmatch(part):
        return "has a name that Windows reserves"
    if _DRIVE.match(part):
        return "has a drive letter"
    if os is Os.WINDOWS and _NOT_ON_WINDOWS & set(part):
        return "has characters that Windows does not allow"
    return None


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", path).casefold())
