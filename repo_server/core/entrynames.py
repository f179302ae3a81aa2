"""What an entry of a package archive may be called, and how much an archive may hold (L41)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from repo_server.core.model import Os

MAX_PART_BYTES = 255
PAX_IGNORED = frozenset({"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"})
"""Fields of a tar's pax headers that a package may have beside ``path``, because nothing depends on them."""
PAX_IGNORED_FAMILIES = ("SCHILY.xattr.", "LIBARCHIVE.xattr.", "LIBARCHIVE.creationtime")

_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?: *\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_NOT_ON_WINDOWS = frozenset('<>:"|?*')
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Caps of an archive; what is above one of them is taken for a bomb."""

    max_entries: int = 100_000
    """Files and folders."""
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


def path_fault(path: str, os: Os, limits: ArchiveLimits) -> str | None:
    """Say why a relative path with ``/`` is not safe on every file system of an operating system, or ``None``."""
    if len(path.encode(errors="surrogatepass")) > limits.max_path_bytes:
        return f"is longer than {limits.max_path_bytes} bytes"
    parts = path.split("/")
    if len(parts) > limits.max_depth:
        return f"lies deeper than {limits.max_depth} folders"
    return next(filter(None, (_part_fault(part, os) for part in parts)), None)


def folded(path: str) -> str:
    """Return what two paths have in common that some file system takes for one: case and Unicode form do not count."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", path).casefold())


def _part_fault(part: str, os: Os) -> str | None:
    if part in {"", ".", ".."}:
        return "is absolute or has an empty, . or .. part"
    if "\\" in part:
        return "has a backslash"
    if any(unicodedata.category(char) in _UNSAFE_CATEGORIES for char in part):
        return "has control, text-direction or unassigned characters, or is not UTF-8"
    if part[-1] in ". " or part[0] == " ":
        return "has a part that begins with a blank or ends with a blank or dot"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"has a part longer than {MAX_PART_BYTES} bytes"
    if _RESERVED.fullmatch(part):
        return "has a name that Windows reserves"
    if _DRIVE.match(part):
        return "has a drive letter"
    if os is Os.WINDOWS and not _NOT_ON_WINDOWS.isdisjoint(part):
        return "has characters that Windows does not allow"
    return None
