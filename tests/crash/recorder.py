"""Tells of each call what it changed on the disk, by looking before and after it."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

from crash.calls import Call, Change, Moded, Name, New, Resized, Synced, Written

_WRITES = frozenset({"write", "writev", "pwrite", "pwritev", "sendfile"})
_MODES = frozenset({"chmod", "fchmod"})
_FREEING = frozenset({"unlink", "remove", "rmdir"})
_FLUSHING = frozenset({"fsync", "fdatasync"})
_SHIFT = 24
"""A node is a number of its own; a file that got the inode of one that is gone is another node."""


class Recorder:
    """Holds the calls of one process, in order. ``root``: the endpoint's folder."""

    def __init__(self, root: str, see: Callable[[int], int]) -> None:
        """``see``: an inode as the agent sees it."""
        self._see = see
        self.calls: list[Call] = []
        self._root = os.path.realpath(root)
        self._ages: dict[int, int] = {}
        # What the tap replaces, as it is.
        self._open, self._lstat, self._fstat = os.open, os.lstat, os.fstat
        self._pread, self._close, self._seek = os.pread, os.close, os.lseek
        self._monotonic = time.monotonic

    def watch(self, name: str, where: str, done: Callable[[], Any], facts: tuple[Any, ...]) -> Any:
        """Do a call and note it; one that raises changes nothing."""
        before = self._before(name, where, facts)
        changes: tuple[Change, ...] = ()
        try:
            result = done()
            changes = tuple(self._changes(name, where, facts, before, result))
        finally:
            shown = os.path.relpath(where, self._root) if where else ""
            self.calls.append(Call(name, shown, self._monotonic(), changes))
        return result

    def _before(self, name: str, where: str, facts: tuple[Any, ...]) -> Any:
        if name == "open":
            return self._found(where)
        if name in {"rename", "replace", "exchange", "link"}:
            return self._found(where), self._found(facts[0])
        if name in _WRITES:
            return self._position(name, *facts)
        return None

    def _changes(self, name: str, where: str, facts: tuple[Any, ...], before: Any, result: Any) -> Iterator[Change]:
        if name == "open":
            yield from self._opened(where, facts[0], before)
        elif name in {"rename", "replace", "exchange", "link"}:
            yield from self._renamed(name, where, facts[0], before)
        elif name in _FREEING:
            yield Name(self._above(where), os.path.basename(where), None)
        elif name in {"mkdir", "symlink"}:
            yield from self._born(where)
        elif name in _WRITES:
            node = self._node(self._fstat(facts[0][0]))
            yield Written(node, before, self._read_back(facts, before, result))
        elif name in {"truncate", "ftruncate"}:
            size = facts[0][0] if name == "truncate" else facts[0][1]
            node = self._node(self._lstat(where) if name == "truncate" else self._fstat(facts[0][0]))
            yield Resized(node, size)
        elif name in _MODES:
            now = self._lstat(where) if name == "chmod" else self._fstat(facts[0][0])
            yield Moded(self._node(now), stat.S_IMODE(now.st_mode))
        elif name in _FLUSHING:
            yield Synced(self._node(self._fstat(facts[0][0])))
        elif name == "syncfs":
            yield Synced(None)

    def _opened(self, where: str, flags: int, before: os.stat_result | None) -> Iterator[Change]:
        if before is None:
            yield from self._born(where)
        elif flags & os.O_TRUNC:
            yield Resized(self._node(before), 0)

    def _born(self, where: str) -> Iterator[Change]:
        now = self._lstat(where)
        self._ages[now.st_ino] = self._ages.get(now.st_ino, -1) + 1
        kinds = {stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
        kind = kinds.get(stat.S_IFMT(now.st_mode), "file")
        target = os.readlink(where) if kind == "link" else ""
        yield New(self._node(now), kind, stat.S_IMODE(now.st_mode), self._see(now.st_ino), target)
        yield Name(self._above(where), os.path.basename(where), self._node(now))

    def _renamed(self, name: str, where: str, target: str, before: Any) -> Iterator[Change]:
        source, other = before
        swapped = None if name != "exchange" or other is None else self._node(other)
        if name != "link":
            yield Name(self._above(where), os.path.basename(where), swapped)
        yield Name(self._above(target), os.path.basename(target), self._node(source))

    def _position(self, name: str, arguments: tuple[Any, ...], _options: dict[str, Any]) -> int:
        """Return where a write begins."""
        if name in {"pwrite", "pwritev"}:
            return int(arguments[2])
        if fcntl.fcntl(arguments[0], fcntl.F_GETFL) & os.O_APPEND:
            return self._fstat(arguments[0]).st_size
        return self._seek(arguments[0], 0, os.SEEK_CUR)

    def _read_back(self, facts: tuple[Any, ...], offset: int, count: int) -> bytes:
        descriptor = self._open(f"/proc/self/fd/{facts[0][0]}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._pread(descriptor, count, offset)
        finally:
            self._close(descriptor)

    def _above(self, where: str) -> int:
        return self._node(self._lstat(os.path.dirname(where)))

    def _found(self, where: str) -> os.stat_result | None:
        try:
            return self._lstat(where)
        except FileNotFoundError:
            return None

    def _node(self, status: os.stat_result) -> int:
        return status.st_ino << _SHIFT | self._ages.get(status.st_ino, 0)


def node_of(inode: int) -> int:
    """Return the node of something that was there when the recording began."""
    return inode << _SHIFT
