"""Lists a tree without following links: what lies in which folder, and what may not be looked at (L1, L2, L6, L9, L29).

Names are Python's, with surrogate escapes for bytes that are not UTF-8, so that no name can stop a walk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from repo_server.core.model import FileState
from repo_server.core.names import RESERVED_AT_ROOT, is_temporary, printable, unsafe_name
from repo_server.core.policy import Limits
from repo_server.tree.treeio import FileIdentity

UNREADABLE_FILE = "unreadable_file"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Odd:
    """A name that leads to something else than a regular file (L29)."""

    what: str


Entry: TypeAlias = FileIdentity | Odd


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file is not offered, before it is known since when."""

    path: str
    """Relative to the root, as the system gives it; shown escaped."""
    code: str
    message: str
    state: FileState = FileState.PROBLEM


@dataclass(frozen=True, slots=True)
class Listing:
    """One folder: its entries but for folders that are walked themselves. The descriptor is open for one step only."""

    folder: str
    """"" is the root."""
    descriptor: int
    entries: dict[str, Entry]


@dataclass(slots=True)
class Walk:
    """One walk over a tree: iterate ``listings`` to its end, then read the rest."""

    root: int
    """Descriptor of the root folder."""
    limits: Limits
    is_file_name: Callable[[str], bool]
    """Whether a name is a release file's or a sidecar's: no folder may have one."""
    faults: list[Fault] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    """Folders whose content is not known because the disk said no: that is not a removal."""
    truncated: bool = False
    """There are more files than the limit, and the rest was not looked at (L6)."""
    _count: int = 0

    def listings(self) -> Iterator[Listing]:
        """Yield every folder, parents first, siblings by name."""
        waiting = [""]
        while waiting and not self.truncated:
            folder = waiting.pop()
            try:
                descriptor = open_folder(self.root, folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._cannot_read(folder, error)
                continue
            try:
                entries, folders = self._list(folder, descriptor)
                if entries is not None:
                    yield Listing(folder, descriptor, entries)
            finally:
                os.close(descriptor)
            waiting += sorted(folders, reverse=True)

    def _list(self, folder: str, descriptor: int) -> tuple[dict[str, Entry] | None, list[str]]:
        entries: dict[str, Entry] = {}
        folders: list[str] = []
        try:
            with os.scandir(descriptor) as found:
                for item in found:
                    self._count += 1
                    if self._count > self.limits.max_files:
                        self._too_many()
                        break
                    self._add(folder, item, entries, folders)
        except OSError as error:
            self._cannot_read(folder, error)
            return None, []
        return entries, folders

    def _add(self, folder: str, item: os.DirEntry[str], entries: dict[str, Entry], folders: list[str]) -> None:
        name = item.name
        if not folder and name in RESERVED_AT_ROOT:
            return
        try:
            status = item.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            # Not absent: an absent .channel would mean stable.
            entries[name] = Odd(f"unreadable ({error.strerror or error})")
            return
        if stat.S_ISREG(status.st_mode):
            entries[name] = FileIdentity.of(status)
        elif not stat.S_ISDIR(status.st_mode) or self.is_file_name(name):
            entries[name] = odd(status)
        elif self._may_enter(folder, name):
            folders.append(join(folder, name))

    def _may_enter(self, folder: str, name: str) -> bool:
        if is_temporary(name):
            return False
        path = join(folder, name)
        unsafe = unsafe_name(name)
        if unsafe is not None:
            self.faults.append(Fault(path, "unsafe_name", f"the folder's name {unsafe}; rename it, it is not entered"))
            return False
        # One level below the limit is still listed, so that each file there is named.
        if depth(path) > self.limits.max_depth + 1:
            self.faults.append(Fault(path, "too_deep", f"folders go {self.limits.max_depth} deep; it is not entered"))
            return False
        return True

    def _cannot_read(self, folder: str, error: OSError) -> None:
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and folder:
            # It was a folder a moment ago and is a link now: the next walk names it.
            return
        self.unreadable.add(folder)
        message = f"the folder cannot be read ({error.strerror}); releases known from it stay until it can be again"
        self.faults.append(Fault(folder, "unreadable_folder", message))

    def _too_many(self) -> None:
        self.truncated = True
        message = (
            f"the tree has more than {self.limits.max_files} files; the rest is not looked at. "
            "Remove files or raise limits.max_files in repo.toml"
        )
        self.faults.append(Fault("", "too_many_files", message))


def open_folder(root: int, folder: str) -> int:
    """Open a folder below the root's descriptor without following a link; raise ``OSError`` (L29)."""
    descriptor = os.dup(root)
    try:
        for part in folder.split("/") if folder else ():
            inner = os.open(part, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def entry_at(descriptor: int, name: str) -> Entry | None:
    """Say what a name in an open folder is now; ``None``: nothing. Raises ``OSError`` for what the disk says."""
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return FileIdentity.of(status) if stat.S_ISREG(status.st_mode) else odd(status)


def odd(status: os.stat_result) -> Odd:
    """Name what is not a regular file."""
    return Odd(_KINDS.get(stat.S_IFMT(status.st_mode), "something unknown"))


def unreadable_file(path: str, error: OSError) -> Fault:
    """Say that the disk did not let a file be read."""
    return Fault(path, UNREADABLE_FILE, f"{printable(path)} cannot be read: {error.strerror or error}")


def join(folder: str, name: str) -> str:
    """Return the path of a name in a folder."""
    return f"{folder}/{name}" if folder else name


def depth(folder: str) -> int:
    """Return how many folders below the root a folder is; the root is 0."""
    return folder.count("/") + 1 if folder else 0
