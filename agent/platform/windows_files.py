"""Files as Windows has them (``files.py``).

Every file is opened so that others may rename and remove it meanwhile, as on the other systems, and a link, junction or
any other reparse point is never gone through. Rights come from the folder's access list (``windows_access.py``), so
permission bits mean nothing. A folder cannot be flushed: NTFS journals names, and each rename here writes through.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from agent.platform import win32
from agent.platform.patience import Patience
from agent.platform.win32 import FileAttributeTagInfo, Overlapped, Win32, file_error
from agent.platform.windows_access import copy_access

_READ, _WRITE, _APPEND, _LOOK = 0x8000_0000, 0x4000_0000, 0x4, 0x80
_SYNCHRONIZE, _READ_DATA = 0x10_0000, 0x1
_SHARE_ALL, _SHARE_BUT_REMOVAL = 0x7, 0x3
_CREATE_NEW, _OPEN_EXISTING, _OPEN_ALWAYS = 1, 3, 4
_NORMAL, _THROUGH_NO_LINK, _FOLDERS_TOO = 0x80, 0x0020_0000, 0x0200_0000
_ATTRIBUTE_TAG_INFO = 9
_IS_FOLDER, _REPARSE_POINT = 0x10, 0x400
_EXCLUSIVE, _FAIL_AT_ONCE = 0x2, 0x1
_FAR = 0x7FFF_FFFF
"""The lock lies far behind the end: a locked byte of Windows cannot be read by others."""
_REPLACE_EXISTING, _WRITE_THROUGH = 0x1, 0x8


class WindowsHeldFolder:
    """A folder that is held by a handle: as long as it is, neither it nor a folder above can be renamed or removed."""

    def __init__(self, files: WindowsFiles, path: Path, handle: int) -> None:
        self._files = files
        self._path = path
        self._handle = handle

    def again(self) -> WindowsHeldFolder:
        """Hold the same folder once more."""
        return self._files.hold(self._path)

    def enter(self, name: str) -> WindowsHeldFolder:
        """Hold a folder that lies in it."""
        return self._files.hold(self._path / name)

    def make(self, name: str, mode: int) -> WindowsHeldFolder:
        """Make a folder in it, and hold that; its rights are inherited."""
        (self._path / name).mkdir(mode)
        return self.enter(name)

    def create(self, name: str) -> int:
        """Open a new file in it for writing."""
        return self._files.open(self._path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def sync_file(self, name: str) -> None:
        """Make the content of a file in it durable."""
        self._files.sync_file(self._path / name)

    def sync(self) -> None:
        """Do nothing: Windows journals names."""

    def sync_file_system(self) -> bool:
        """Return ``False``: to flush a whole volume takes a handle on it, and waits for everybody's data."""
        return False

    def close(self) -> None:
        """Let it go."""
        self._files.close(self._handle)


class WindowsFiles:
    """The calls of Windows."""

    has_modes = False

    def __init__(self, api: Win32, patience: Patience | None = None) -> None:
        self._api = api
        self._patience = patience or Patience()

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:  # noqa: ARG002 -- rights are inherited
        """Open a file that is no reparse point."""
        creation = _OPEN_EXISTING
        if flags & os.O_CREAT:
            creation = _CREATE_NEW if flags & os.O_EXCL else _OPEN_ALWAYS
        handle = self._open(path, _access(flags), _SHARE_ALL, creation, _NORMAL)
        descriptor = self._api.descriptor_of(handle, flags & (os.O_APPEND | os.O_RDWR | os.O_WRONLY))
        if flags & os.O_TRUNC:
            # Not by CreateFileW: that does not go with opening no reparse point.
            try:
                os.ftruncate(descriptor, 0)
            except OSError:
                os.close(descriptor)
                raise
        return descriptor

    def open_at_once(self, path: Path, flags: int = os.O_RDONLY) -> int:
        """Open what may be anything but a reparse point; nothing of it blocks on Windows."""
        return self.open(path, flags)

    def hold(self, folder: Path) -> WindowsHeldFolder:
        """Hold a folder."""
        handle = self._open(folder, _LOOK, _SHARE_BUT_REMOVAL, _OPEN_EXISTING, _FOLDERS_TOO)
        if not self._attributes(handle, folder) & _IS_FOLDER:
            self.close(handle)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        return WindowsHeldFolder(self, folder, handle)

    def close(self, handle: int) -> None:
        """Close a handle that is no descriptor."""
        self._api.kernel32.CloseHandle(handle)

    def set_mode(self, descriptor: int, mode: int) -> None:
        """Do nothing: rights are inherited from the folder."""

    def make_private(self, descriptor: int) -> None:
        """Do nothing: rights are inherited from the folder."""

    def copy_access(self, source: Path, target: Path, status: os.stat_result) -> None:
        """Give a copy the owner and the access list of its original."""
        del status
        copy_access(self._api, source, target)

    def replace(self, one: Path, other: Path, *, patiently: bool = True) -> None:
        """Rename a file to a name that may be taken; ``patiently``: after waiting for whoever holds one of the two."""
        if patiently:
            self._patience.until_free(lambda: self._move(one, other))
        else:
            self._move(one, other)

    def remove(self, path: Path) -> None:
        """Remove a file or link, also one that is marked read-only; one that is not there is removed already."""
        try:
            path.unlink(missing_ok=True)
        except PermissionError:
            path.chmod(stat.S_IWRITE)
            path.unlink(missing_ok=True)

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder with all in it, also what is marked read-only."""

        def again(function: Callable[[str], object], name: str, _: object) -> None:
            Path(name).chmod(stat.S_IWRITE)
            function(name)

        shutil.rmtree(folder, onerror=again)

    def sync(self, descriptor: int) -> None:
        """Make what was written durable (``FlushFileBuffers``); the descriptor must be open for writing."""
        os.fsync(descriptor)

    def sync_file(self, path: Path) -> None:
        """Make a file durable that others wrote, also one that is marked read-only."""
        mode = path.lstat().st_mode
        if not mode & stat.S_IWRITE:
            path.chmod(stat.S_IWRITE)
        try:
            descriptor = self.open(path, os.O_RDWR)
            try:
                self.sync(descriptor)
            finally:
                os.close(descriptor)
        finally:
            if not mode & stat.S_IWRITE:
                path.chmod(stat.S_IMODE(mode))

    def sync_folder(self, folder: Path) -> None:
        """Do nothing but look whether it is there: NTFS journals names, and ``replace`` writes through."""
        folder.stat()

    def lock(self, descriptor: int, *, wait: bool) -> None:
        """Lock a file for this descriptor; without ``wait`` raise ``BlockingIOError`` if it is locked."""
        where = Overlapped(offset=0, offset_high=_FAR)
        how = _EXCLUSIVE | (0 if wait else _FAIL_AT_ONCE)
        if self._api.kernel32.LockFileEx(self._api.handle_of(descriptor), how, 0, 1, 0, ctypes.pointer(where)):
            return
        number = self._api.last_error()
        if number == win32.ERROR_LOCK_VIOLATION:
            raise BlockingIOError(errno.EAGAIN, "it is locked by another process")
        raise file_error("LockFileEx", number, "")

    def read_at(self, descriptor: int, length: int, position: int) -> bytes:
        """Read from a position."""
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.read(descriptor, length)

    def write_at(self, descriptor: int, data: bytes | memoryview, position: int) -> int:
        """Write to a position; return how many bytes were written."""
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.write(descriptor, data)

    def is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is a folder; a junction, which is a folder for ``stat``, is none."""
        return entry.is_dir(follow_symlinks=False) and not self.is_link(entry.stat(follow_symlinks=False))

    def is_link(self, status: os.stat_result) -> bool:
        """Whether a path, as ``lstat`` saw it, leads elsewhere."""
        return is_reparse_point(status)

    def _open(self, path: Path, access: int, share: int, creation: int, attributes: int) -> int:
        handle = self._api.kernel32.CreateFileW(
            str(path), access, share, None, creation, attributes | _THROUGH_NO_LINK, None
        )
        if handle in {None, win32.INVALID_HANDLE}:
            raise file_error("CreateFileW", self._api.last_error(), path)
        with contextlib.ExitStack() as stack:
            stack.callback(self.close, handle)
            if self._attributes(handle, path) & _REPARSE_POINT:
                raise OSError(errno.ELOOP, "it is a link or another reparse point; expected a plain one", str(path))
            stack.pop_all()
        return int(handle)

    def _attributes(self, handle: int, path: Path) -> int:
        info = FileAttributeTagInfo()
        if not self._api.kernel32.GetFileInformationByHandleEx(
            handle, _ATTRIBUTE_TAG_INFO, ctypes.addressof(info), ctypes.sizeof(info)
        ):
            raise file_error("GetFileInformationByHandleEx", self._api.last_error(), path)
        return int(info.attributes)

    def _move(self, one: Path, other: Path) -> None:
        if not self._api.kernel32.MoveFileExW(str(one), str(other), _REPLACE_EXISTING | _WRITE_THROUGH):
            raise file_error("MoveFileExW", self._api.last_error(), one)


def is_reparse_point(status: os.stat_result) -> bool:
    """Whether a path, as ``lstat`` saw it, is a link, a junction, or anything else that leads elsewhere."""
    return stat.S_ISLNK(status.st_mode) or bool(getattr(status, "st_file_attributes", 0) & _REPARSE_POINT)


def _access(flags: int) -> int:
    if flags & os.O_APPEND:
        # Without the right to write elsewhere each write appends, also beside other processes.
        reads = _READ_DATA | _LOOK if flags & os.O_RDWR else _LOOK
        return _APPEND | reads | _SYNCHRONIZE
    if flags & os.O_RDWR:
        return _READ | _WRITE
    return _WRITE | _LOOK if flags & os.O_WRONLY else _READ
