"""What must not be packed, so that every agent unpacks what is packed (L41). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from repo_server.core.entrynames import ArchiveLimits, folded, path_fault
from repo_server.core.model import Os

LIMITS = ArchiveLimits()


def path_faults(paths: Iterable[str], os: Os) -> Iterator[str]:
    """Yield a sentence for each path, relative and with ``/``, that must not be in an archive for a system."""
    seen: dict[str, str] = {}
    for path in paths:
        why = path_fault(path, os, LIMITS)
        if why is not None:
            yield f"{path!r:.120} {why}"
        first = seen.setdefault(folded(path), path)
        if first != path:
            yield f"{path!r} and {first!r} differ only in case or Unicode form; some systems take them for one file"


def size_faults(sizes: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Yield a sentence for each file (path, bytes), and for all together, that an agent would not unpack."""
    total = 0
    for path, size in sizes:
        total += size
        if size > LIMITS.max_file_bytes:
            yield f"{path!r} has {size} bytes; a file may have {LIMITS.max_file_bytes}"
    if total > LIMITS.max_total_bytes:
        yield f"all files have {total} bytes; together they may have {LIMITS.max_total_bytes}"


def ratio_fault(unpacked: int, packed: int) -> str | None:
    """Say why an archive would be taken for a bomb; both in bytes."""
    if unpacked <= LIMITS.most_bytes_from(packed):
        return None
    return (
        f"{unpacked} bytes shrink to {packed}, more than {LIMITS.max_ratio} to 1, which agents take for a bomb; "
        "leave large empty files out and make them at installation"
    )
