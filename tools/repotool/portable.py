"""Which names and entries an archive may have, so that every platform unpacks the same files (L41). Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

MAX_ENTRIES = 100_000
"""Files and folders in one archive."""

MAX_PATH_BYTES = 1024
MAX_PART_BYTES = 200

_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)
_FORBIDDEN = frozenset('<>:"|?*\\')


def path_faults(paths: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each path, relative and with ``/``, that must not be in an archive."""
    seen: dict[str, str] = {}
    for path in paths:
        for part in path.split("/"):
            why = _part_fault(part)
            if why is not None:
                yield f"{path!r}: {why}"
                break
        if len(path.encode(errors="surrogateescape")) > MAX_PATH_BYTES:
            yield f"{path!r:.80}…: the path is longer than {MAX_PATH_BYTES} bytes"
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in seen:
            yield f"{path!r} and {seen[folded]!r} differ only in case; Windows and macOS take them for one file"
        seen[folded] = path


def _part_fault(part: str) -> str | None:
    if any("\udc80" <= char <= "\udcff" for char in part):
        return "the name is not UTF-8"
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs"} for char in part):
        return "the name has control or text-direction characters"
    if _RESERVED.fullmatch(part.rstrip(". ")):
        return f"Windows reserves the name {part!r}"
    if part.endswith((".", " ")):
        return "Windows drops a dot or blank at the end of a name"
    if not _FORBIDDEN.isdisjoint(part):
        return 'Windows allows none of < > : " | ? * \\ in a name'
    if len(part.encode()) > MAX_PART_BYTES:
        return f"the name is longer than {MAX_PART_BYTES} bytes"
    return None
