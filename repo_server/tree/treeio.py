"""Reading and writing single files of a tree: never through a link, never half (L17 to L19, L25, L29).

::

    TreeError
    ├── NotRegular     something else than a regular file, or a link on the way
    ├── TooLarge       more bytes than the limit
    └── Busy           another operation holds the tree's lock

A file that does not exist is Python's ``FileNotFoundError``; what the disk says is an ``OSError``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

LOCK_NAME = ".lock"
TEMPORARY_PREFIX = ".tmp-"
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{16}")
_SECOND = 10**9

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO would block for ever, and nothing else minds.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TreeError(Exception):
    """Something about a file of the tree is not as the format says."""


class NotRegular(TreeError):
    """The name does not lead to a regular file without passing a link (L29)."""


class TooLarge(TreeError):
    """The file has more bytes than the limit (L6)."""


class Busy(TreeError):
    """Another operation holds the tree's lock (L17)."""


class FileIdentity(NamedTuple):
    """What must be unchanged for a digest to be trusted (L25)."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """Take the identity from a ``stat`` result."""
        # Without the constructor, which is Python's: a walk does this for every file.
        values = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        return tuple.__new__(cls, values)


def open_beneath(root: Path, relative: str) -> int:
    """Open a regular file for reading and return its descriptor; every folder on the way is a real one (L29).

    Raises ``NotRegular``, ``FileNotFoundError`` or another ``OSError``. ``relative`` uses ``/``.
    """
    parts = relative.split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts) or not _encodable(relative):
        raise NotRegular(f"{relative!r} is not a path inside the tree")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Even opening a FIFO or a device can have an effect, so look first; below, look again at what was opened.
        if not stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
            raise NotRegular(f"{relative} is a link or not a regular file")
        descriptor = os.open(parts[-1], _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
            raise NotRegular(f"{relative} leads through a link or is not a regular file") from error
        raise
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(f"{relative} is not a regular file")
    return descriptor


def read_small(root: Path, relative: str, limit: int) -> tuple[bytes, FileIdentity]:
    """Read a file of at most ``limit`` bytes; raise ``TooLarge`` without reading a larger one (L6)."""
    descriptor = open_beneath(root, relative)
    try:
        status = os.fstat(descriptor)
        data = b"" if status.st_size > limit else read_up_to(descriptor, limit + 1)
        if status.st_size > limit or len(data) > limit:
            raise TooLarge(f"{relative} has {max(status.st_size, len(data))} bytes; at most {limit} are read")
        return data, FileIdentity.of(status)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file whole and durably; its modification time moves at least one whole second (L18, L19)."""
    temporary = temporary_beside(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            give_to_owner(descriptor, path.parent)
            _move_on(descriptor, path)
            os.fsync(descriptor)
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def give_to_owner(descriptor: int, folder: Path) -> None:
    """Give a file or folder that root has just made to whoever owns the folder it is in; for others do nothing.

    Else a server without privileges could not go on with what an operator began as root. The descriptor must be of
    something new: given away by its name, a link put there by the folder's owner would be followed.
    """
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    with contextlib.suppress(PermissionError):  # a file server that does not trust root
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def open_or_create(path: Path, flags: int, mode: int) -> int:
    """Open a file; one that is not there is made, and belongs to its folder's owner (see ``give_to_owner``)."""
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return os.open(path, flags | os.O_CREAT, mode)
    try:
        give_to_owner(descriptor, path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Remove what killed writers left in folders of a tree; only under its lock, when nobody else can be writing."""
    for folder in folders:
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                path.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """Return an unused dot-name in a file's folder (L18)."""
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished, fsynced temporary file to its name, durably (L18)."""
    temporary.rename(path)
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file durably; one that is not there is removed already."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def tree_lock(root: Path) -> Iterator[None]:
    """Hold the tree's exclusive lock; raise ``Busy`` at once when another operation has it (L17)."""
    descriptor = open_or_create(root / LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another operation is working on {root}; wait for it and try again") from None
        yield
    finally:
        os.close(descriptor)


def _move_on(descriptor: int, replaced: Path) -> None:
    """Give a new file a modification time at least one whole second after that of the file it replaces (L19)."""
    try:
        before = replaced.lstat().st_mtime_ns
    except FileNotFoundError:
        return
    # In whole numbers: as a float, the last 100 ns of a second are already the next one.
    now = os.fstat(descriptor).st_mtime_ns
    if now // _SECOND <= before // _SECOND:
        later = (before // _SECOND + 1) * _SECOND
        os.utime(descriptor, ns=(later, later))


def _encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def read_up_to(descriptor: int, limit: int) -> bytes:
    """Read up to ``limit`` bytes; a network file system may give them in pieces."""
    pieces: list[bytes] = []
    while limit > 0 and (piece := os.read(descriptor, limit)):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)
