"""What an archive may hold, so that every agent unpacks it and every platform gets the same files (L41). Pure.

The agent checks the same while it unpacks; ``tests/tools/test_portable.py`` holds the two against each other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from repo_server.core.model import Os

MAX_ENTRIES = 100_000
"""Files and folders in one archive."""
MAX_FILE_BYTES = 4 * 1024**3
MAX_TOTAL_BYTES = 8 * 1024**3
MAX_RATIO = 200
"""Unpacked bytes per byte of the archive, from ``RATIO_FROM_BYTES`` on."""
RATIO_FROM_BYTES = 16 * 1024**2
MAX_PATH_BYTES = 512
MAX_DEPTH = 32
MAX_PART_BYTES = 255

_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?: *\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_NOT_ON_WINDOWS = frozenset('<>:"|?*')


def path_faults(paths: Iterable[str], os: Os) -> Iterator[str]:
    """Yield a sentence for each path, relative and with ``/``, that must not be in an archive for a system."""
    seen: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        why = next(filter(None, (_part_fault(part, os) for part in parts)), None)
        if why is not None:
            yield f"{path!r}: {why}"
        if len(path.encode(errors="surrogateescape")) > MAX_PATH_BYTES:
            yield f"{path!r:.80}…: the path is longer than {MAX_PATH_BYTES} bytes"
        if len(parts) > MAX_DEPTH:
            yield f"{path!r:.80}: lies deeper than {MAX_DEPTH} folders"
        first = seen.setdefault(_folded(path), path)
        if first != path:
            yield f"{path!r} and {first!r} differ only in case or Unicode form; some systems take them for one file"


def size_faults(sizes: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Yield a sentence for each file (path, bytes), and for all together, that an agent would not unpack."""
    total = 0
    for path, size in sizes:
        total += size
        if size > MAX_FILE_BYTES:
            yield f"{path!r} has {size} bytes; a file may have {MAX_FILE_BYTES}"
    if total > MAX_TOTAL_BYTES:
        yield f"all files have {total} bytes; together they may have {MAX_TOTAL_BYTES}"


def ratio_fault(unpacked: int, packed: int) -> str | None:
    """Say why an archive would be taken for a bomb; both in bytes."""
    if unpacked <= max(RATIO_FROM_BYTES, MAX_RATIO * packed):
        return None
    return (
        f"{unpacked} bytes shrink to {packed}, more than {MAX_RATIO} to 1, which agents take for a bomb; "
        "leave large empty files out and make them at installation"
    )


def _part_fault(part: str, os: Os) -> str | None:
    if any("\udc80" <= char <= "\udcff" for char in part):
        return "the name is not UTF-8"
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for char in part):
        return "the name has control, text-direction or unassigned characters"
    if "\\" in part:
        return "the name has a backslash"
    if part[-1] in ". " or part[0] == " ":
        return "Windows drops a blank at the start, and a dot or blank at the end of a name"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"the name is longer than {MAX_PART_BYTES} bytes"
    if _RESERVED.fullmatch(part):
        return f"Windows reserves the name {part!r}"
    if _DRIVE.match(part):
        return "the name begins like a drive letter"
    if os is Os.WINDOWS and not _NOT_ON_WINDOWS.isdisjoint(part):
        return 'Windows allows none of < > : " | ? * in a name'
    return None


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", path).casefold())
