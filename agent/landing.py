"""A new folder that is written below, through no link, and made durable as a whole (FR-CMP-003, promise 1)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent import durable
from agent.errors import local_failure

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER_MODE = 0o755
MANY_FILES = 32

Parts = tuple[str, ...]


class Landing:
    """Where a package's files land. Paths are in parts, checked before; every open is relative to a held folder."""

    def __init__(self, root: Path, descriptor: int) -> None:
        self._root = root
        self._descriptor = descriptor
        self._folders: set[Parts] = {()}
        self._files: list[Parts] = []

    def folder(self, parts: Parts) -> None:
        """Make a folder and those above it; one that is there stays."""
        with self._parent((*parts, "")):
            pass

    def file(self, parts: Parts, pieces: Iterable[bytes], mode: int) -> None:
        """Write a file that must not be there yet; raise ``LocalFailure`` when the disk refuses."""
        shown = "/".join(parts)
        with self._parent(parts) as parent, contextlib.ExitStack() as stack:
            try:
                descriptor = os.open(parts[-1], _NEW_FILE, 0o600, dir_fd=parent)
            except OSError as error:
                raise local_failure(error, f"create {self._root}/{shown}") from error
            stack.callback(os.close, descriptor)
            self._files.append(parts)
            for piece in pieces:
                self._write(descriptor, piece, shown)
            os.fchmod(descriptor, mode)

    def sync(self) -> None:
        """Make everything durable, files before the folders that name them; raise ``LocalFailure``.

        In one pass at the end, and for many files in one call: a flush each would take minutes on a slow disk.
        """
        try:
            if len(self._files) > MANY_FILES and _sync_file_system(self._descriptor):
                return
            for parts in self._files:
                with self._parent(parts) as parent:
                    _sync(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, parent)
            for parts in sorted(self._folders, key=len, reverse=True):
                with self._parent((*parts, "")) as folder:
                    os.fsync(folder)
            durable.sync_folder(self._root.parent)
        except OSError as error:
            raise local_failure(error, f"flush {self._root}") from error

    def _write(self, descriptor: int, piece: bytes, shown: str) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError as error:
            raise local_failure(error, f"write {self._root}/{shown}") from error

    @contextlib.contextmanager
    def _parent(self, parts: Parts) -> Iterator[int]:
        """Open the folder that a path lies in, and make those that are missing."""
        current = os.dup(self._descriptor)
        try:
            for depth, part in enumerate(parts[:-1], 1):
                inner = self._enter(current, part, parts[:depth])
                os.close(current)
                current = inner
            yield current
        finally:
            os.close(current)

    def _enter(self, above: int, part: str, parts: Parts) -> int:
        try:
            if parts in self._folders:
                return os.open(part, _FOLDER, dir_fd=above)
            os.mkdir(part, 0o700, dir_fd=above)
            descriptor = os.open(part, _FOLDER, dir_fd=above)
            os.fchmod(descriptor, FOLDER_MODE)
        except OSError as error:
            raise local_failure(error, f"make the folder {self._root}/{'/'.join(parts)}") from error
        self._folders.add(parts)
        return descriptor


@contextlib.contextmanager
def landing(root: Path) -> Iterator[Landing]:
    """Make the folder ``root``, private and new; on any exception it is removed with all that is in it."""
    try:
        root.mkdir(mode=0o700)
    except OSError as error:
        raise local_failure(error, f"make the folder {root}") from error
    try:
        descriptor = os.open(root, _FOLDER)
        try:
            yield Landing(root, descriptor)
        finally:
            os.close(descriptor)
    except BaseException as reason:
        try:
            shutil.rmtree(root)
        except OSError as error:
            reason.add_note(f"what was unpacked could not be removed: {error}")
        raise


def _sync_file_system(descriptor: int) -> bool:
    """Flush the whole file system that a descriptor is on; False where the system has no such call."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        return False
    if library.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


def _sync(name: str, flags: int, parent: int) -> None:
    descriptor = os.open(name, flags, dir_fd=parent)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
