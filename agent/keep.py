"""Carries the files that a package preserves from the old install folder to the new one (L42, FR-CMP-003)."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from agent.durable import sync_folder
from agent.platform.files import FILES
from repo_server.core.globs import matches_any


class Identity(NamedTuple):
    """What is unchanged while a file is."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int


Carried: TypeAlias = Mapping[str, Identity | None]
"""Relative path → what was copied; ``None``: it was being written, so it is copied again."""

_RACY_NANOSECONDS = 2_000_000_000


def preserved(folder: Path, globs: Sequence[str]) -> Iterator[str]:
    """Return the relative paths of what is preserved: files, links as they are, and folders that globs name."""
    if not globs:
        return
    covered = {glob.removesuffix("/**") for glob in globs if glob.endswith("/**")}
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(folder / below) as found:
                entries = sorted(found, key=lambda item: item.name)
        except FileNotFoundError:
            # The program that still runs in there removed it.
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            is_folder = FILES.is_folder(entry)
            if is_folder:
                waiting.append(path)
            if (matches_any(globs, path) or path in covered) and (is_folder or _is_portable(entry)):
                yield path


def carry(old: Path, new: Path, globs: Sequence[str], before: Carried = MappingProxyType({})) -> Carried:
    """Make the preserved part of ``new`` equal to that of ``old``, durably; return what that is.

    ``before`` is what an earlier call returned. The program ran on since then: only what changed is copied again, and
    what has gone from ``old`` goes from ``new``. Modes, owners and times are kept. Raises ``OSError``.
    """
    recent = new.lstat().st_ctime_ns - _RACY_NANOSECONDS
    carried: dict[str, Identity | None] = {}
    touched: set[Path] = set()
    for path in sorted(preserved(old, globs)):
        try:
            identity = _identity((old / path).lstat())
            if before.get(path) != identity:
                _make_parents(old, new, path)
                _copy(old / path, new / path)
                touched.update(((new / path).parent, new / path))
        except FileNotFoundError:
            if os.path.lexists(old / path):
                raise
            continue
        # A change within the clock's tick that we read the file in would not show. Windows notes no time of change.
        carried[path] = identity if max(identity.changed_ns, identity.modified_ns) < recent else None
    for gone in sorted(before.keys() - carried.keys(), reverse=True):
        _remove(new / gone)
        touched.add((new / gone).parent)
    for folder in sorted(touched):
        if folder.is_dir() and not folder.is_symlink():
            sync_folder(folder)
    return MappingProxyType(carried)


def size(folder: Path, globs: Sequence[str]) -> int:
    """Return how many bytes the preserved files have."""
    total = 0
    for path in preserved(folder, globs):
        # The program that still runs in there may remove one while we look.
        with contextlib.suppress(FileNotFoundError):
            total += (folder / path).lstat().st_size
    return total


def _is_portable(entry: os.DirEntry[str]) -> bool:
    """Sockets and FIFOs belong to the program that made them; it makes them again."""
    return entry.is_symlink() or entry.is_file(follow_symlinks=False)


def _make_parents(old: Path, new: Path, path: str) -> None:
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        target = new / folder
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise NotADirectoryError(20, "the package has a file where a preserved file needs a folder", str(target))
        if not target.is_dir():
            target.mkdir()
            sync_folder(target.parent)
        FILES.copy_access(old / folder, target, (old / folder).stat())


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        if not os.path.lexists(target):
            target.mkdir()
        elif target.is_symlink() or not target.is_dir():
            raise NotADirectoryError(20, "the package has a file where a preserved folder belongs", str(target))
        FILES.copy_access(source, target, source.stat())
        return
    if target.is_dir() and not target.is_symlink():
        raise IsADirectoryError(21, "the package has a folder where a preserved file belongs", str(target))
    FILES.remove(target)
    status = source.lstat()
    shutil.copy2(source, target, follow_symlinks=False)
    FILES.copy_access(source, target, status)
    if not target.is_symlink():
        FILES.sync_file(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # What the package itself has in there stays.
        with contextlib.suppress(OSError):
            path.rmdir()
    else:
        FILES.remove(path)
