"""Files as POSIX has them (``files.py``). Standard library only: the daemon lives on this."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("these are the calls of POSIX; expected agent.platform.windows_files on Windows")

import fcntl
import os
import stat
from pathlib import Path

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | _SAFE
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE


class HeldFolder:
    """A folder that is held open; names are those in this very folder, and no link among them is followed."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def again(self) -> HeldFolder:
        """Hold the same folder once more."""
        return HeldFolder(os.dup(self._descriptor))

    def enter(self, name: str) -> HeldFolder:
        """Hold a folder that lies in it."""
        return HeldFolder(os.open(name, _FOLDER, dir_fd=self._descriptor))

    def make(self, name: str, mode: int) -> HeldFolder:
        """Make a folder in it, and hold that."""
        os.mkdir(name, 0o700, dir_fd=self._descriptor)
        descriptor = os.open(name, _FOLDER, dir_fd=self._descriptor)
        try:
            os.fchmod(descriptor, mode)
        except OSError:
            os.close(descriptor)
            raise
        return HeldFolder(descriptor)

    def create(self, name: str) -> int:
        """Open a new file in it for writing."""
        return os.open(name, _NEW_FILE, 0o600, dir_fd=self._descriptor)

    def sync_file(self, name: str) -> None:
        """Make the content of a file in it durable."""
        descriptor = os.open(name, os.O_RDONLY | _SAFE, dir_fd=self._descriptor)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """Make its names durable."""
        os.fsync(self._descriptor)

    def sync_file_system(self) -> bool:
        """Flush the whole file system that it lies on; ``False`` where the system has no such call."""
        if not sys.platform.startswith("linux"):
            return False
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "syncfs"):
            return False
        if library.syncfs(self._descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return True

    def close(self) -> None:
        """Let it go."""
        os.close(self._descriptor)


class PosixFiles:
    """The calls of POSIX."""

    __slots__ = ()

    has_modes = True
    """Whether permission bits mean something."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        """Open a file that is not a link."""
        return os.open(path, flags | _SAFE, mode)

    def open_at_once(self, path: Path, flags: int = os.O_RDONLY) -> int:
        """Open what may be anything but a link: a FIFO would block for ever, and nothing else minds."""
        return os.open(path, flags | os.O_NONBLOCK | _SAFE)

    def hold(self, folder: Path) -> HeldFolder:
        """Hold a folder."""
        return HeldFolder(os.open(folder, _FOLDER))

    def set_mode(self, descriptor: int, mode: int) -> None:
        """Set permission bits."""
        os.fchmod(descriptor, mode)

    def make_private(self, descriptor: int) -> None:
        """Take everybody's rights but the owner's, if there are any."""
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)

    def copy_access(self, source: Path, target: Path, status: os.stat_result) -> None:
        """Give a copy the owner and the mode that its original had by ``status``."""
        del source
        own = target.lstat()
        moved = (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid)
        if moved:
            os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
        # A change of owner clears some permission bits.
        if not stat.S_ISLNK(own.st_mode) and (moved or stat.S_IMODE(status.st_mode) != stat.S_IMODE(own.st_mode)):
            target.chmod(stat.S_IMODE(status.st_mode))

    def replace(self, one: Path, other: Path, *, patiently: bool = True) -> None:
        """Rename a file to a name that may be taken; nobody can hold either."""
        del patiently
        one.replace(other)

    def remove(self, path: Path) -> None:
        """Remove a file or link; one that is not there is removed already."""
        path.unlink(missing_ok=True)

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder with all in it."""
        import shutil

        shutil.rmtree(folder)

    def sync(self, descriptor: int) -> None:
        """Make what was written durable."""
        os.fsync(descriptor)

    def sync_file(self, path: Path) -> None:
        """Make a file durable that others wrote."""
        descriptor = os.open(path, os.O_RDONLY | _SAFE)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, descriptor: int, *, wait: bool) -> None:
        """Lock a file for this descriptor; without ``wait`` raise ``BlockingIOError`` if it is locked."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))

    def read_at(self, descriptor: int, length: int, position: int) -> bytes:
        """Read from a position."""
        return os.pread(descriptor, length, position)

    def write_at(self, descriptor: int, data: bytes | memoryview, position: int) -> int:
        """Write to a position; return how many bytes were written."""
        return os.pwrite(descriptor, data, position)

    def is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is a folder, and no link to one."""
        return entry.is_dir(follow_symlinks=False)

    def is_link(self, status: os.stat_result) -> bool:
        """Whether a path, as ``lstat`` saw it, leads elsewhere."""
        return stat.S_ISLNK(status.st_mode)
