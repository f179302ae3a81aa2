"""Stands between the agent and the system: counts the calls that change something, kills or fails at one, or records.

``Tap.install`` replaces the functions of ``os``, ``io``, ``subprocess``, ``signal`` and ``ctypes`` in this process; the
agent has no code for it. That no call gets past is what ``test_crash_recorder.py`` proves with strace. Flushes are
counted and not done: what they promise is the business of ``cuts.py``, and no disk's.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import io
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crash.recorder import Recorder

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
WRITES = frozenset({"write", "writev", "pwrite", "pwritev", "sendfile", "posix_fallocate"})
FLUSHES = frozenset({"fsync", "fdatasync", "syncfs"})
PROCESSES = frozenset({"kill", "killpg", "pidfd_send_signal", "spawn"})
ALLOCATING = WRITES | {"mkdir", "symlink", "link", "create"}
LASTING = {"full": errno.ENOSPC, "readonly": errno.EROFS}
"""Faults that stay until the agent is started again: the disk is full, or was mounted read-only after an error."""
SINGLE = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
_BY_PATH = ("mkdir", "rmdir", "unlink", "remove", "chmod", "chown", "lchown", "truncate", "utime", "setxattr",
            "removexattr", "mkfifo", "mknod")  # fmt: skip
_BY_DESCRIPTOR = ("write", "writev", "pwrite", "pwritev", "ftruncate", "posix_fallocate", "fsync", "fdatasync",
                  "fchmod", "fchown", "sendfile")  # fmt: skip
_BY_TWO_PATHS = ("rename", "replace", "link")
_RENAMEAT2 = frozenset({316, 276})


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at the ``at``-th call, the first is 1: ``kill``, a key of ``SINGLE``, or one of ``LASTING``."""

    kind: str
    at: int


class Tap:
    """Watches one process. ``install`` cannot be taken back."""

    def __init__(
        self, root: Path, log: str, fault: Fault | None = None, recorder: Recorder | None = None, *, flush: bool = False
    ) -> None:
        """``flush``: flushes reach the disk."""
        self._flush = flush
        self.count = 0
        self._root = os.path.realpath(root)
        self._log = os.path.join(self._root, log)
        self._fault = fault
        self._recorder = recorder
        self._readlink, self._getpid, self._kill, self._lstat = os.readlink, os.getpid, os.kill, os.lstat
        self._inside = False

    def install(self) -> None:
        """Replace the functions of this process."""
        for name in _BY_PATH:
            self._replace(os, name, self._path_call)
        for name in _BY_DESCRIPTOR:
            self._replace(os, name, self._descriptor_call)
        for name in _BY_TWO_PATHS:
            self._replace(os, name, self._two_path_call)
        self._replace(os, "symlink", self._symlink_call)
        self._replace(os, "open", self._open_call)
        for name in ("kill", "killpg"):
            self._replace(os, name, self._process_call)
        self._replace(signal, "pidfd_send_signal", self._process_call)
        self._replace(subprocess, "_fork_exec", lambda _, done: self._process_call("spawn", done))
        self._open_files()
        self._open_libraries()

    # The families of calls

    def _path_call(self, name: str, done: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            where = self._where(path, options.get("dir_fd"))
            return self._pass(name, where, lambda: done(path, *rest, **options), (rest, options))

        return call

    def _descriptor_call(self, name: str, done: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            descriptor = arguments[0]
            where = self._where(descriptor)
            if name == "write" and self._is_short(where):
                return done(descriptor, bytes(arguments[1])[: len(arguments[1]) // 2])
            return self._pass(name, where, lambda: done(*arguments, **options), (arguments, options))

        return call

    def _two_path_call(self, name: str, done: Callable[..., Any]) -> Callable[..., Any]:
        def call(one: Any, other: Any, **options: Any) -> Any:
            source = self._where(one, options.get("src_dir_fd"))
            target = self._where(other, options.get("dst_dir_fd"))
            return self._pass(name, source, lambda: done(one, other, **options), (target, options))

        return call

    def _symlink_call(self, name: str, done: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, path: Any, *rest: Any, **options: Any) -> Any:
            where = self._where(path, options.get("dir_fd"))
            return self._pass(name, where, lambda: done(target, path, *rest, **options), (os.fsdecode(target),))

        return call

    def _open_call(self, name: str, done: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, flags: int, mode: int = 0o777, **options: Any) -> Any:
            if not flags & WRITING:
                return done(path, flags, mode, **options)
            where = self._where(path, options.get("dir_fd"))
            return self._pass(name, where, lambda: done(path, flags, mode, **options), (flags, mode))

        return call

    def _process_call(self, name: str, done: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self._inside:
                return done(*arguments, **options)
            return self._pass(name, "", lambda: done(*arguments, **options), ())

        return call

    def _open_files(self) -> None:
        tap, plain = self, io.open

        class File(io.FileIO):
            def write(self, data: Any, /) -> int:
                where = tap._where(self.fileno())
                if tap._is_short(where):
                    return super().write(bytes(data)[: len(data) // 2])
                return tap._pass("write", where, lambda: super(File, self).write(data), ((self.fileno(), data), {}))

            def truncate(self, size: int | None = None, /) -> int:
                size = self.tell() if size is None else size
                facts = ((self.fileno(), size), {})
                return tap._pass(
                    "ftruncate", tap._where(self.fileno()), lambda: super(File, self).truncate(size), facts
                )

        def opened(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
                   errors: str | None = None, newline: str | None = None, closefd: bool = True,
                   opener: Any = None) -> Any:  # fmt: skip
            if not set(mode) & set("wax+"):
                return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)
            bare = mode.replace("b", "").replace("t", "")
            if isinstance(file, int) or opener is not None:
                raw = File(file, bare, closefd, opener)
            else:
                flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if "x" in mode else os.O_TRUNC if "w" in mode else 0)
                where = tap._where(file)
                raw = tap._pass("open", where, lambda: File(file, bare, closefd, opener), (flags, 0o666))
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        builtins.open = io.open = opened  # type: ignore[assignment]

    def _open_libraries(self) -> None:
        tap, plain = self, ctypes.CDLL

        class Library(plain):  # type: ignore[misc,valid-type]
            def __getattr__(self, name: str) -> Any:
                found = super().__getattr__(name)
                if name == "syncfs":
                    return lambda descriptor: tap._failing(
                        "syncfs", tap._where(descriptor), lambda: 0, ((descriptor,),)
                    )
                if name != "syscall":
                    return found

                def syscall(*arguments: Any) -> int:
                    words = [getattr(one, "value", one) for one in arguments]
                    if words[0] not in _RENAMEAT2:
                        raise RuntimeError(f"a system call that nobody watches: {words}")
                    one, other = tap._where(words[2]), tap._where(words[4])
                    return tap._failing("exchange", one, lambda: found(*arguments), (other, {}))

                return syscall

        ctypes.CDLL = Library  # type: ignore[misc]

    # What happens at each

    def _pass(self, name: str, where: str | None, done: Callable[[], Any], facts: tuple[Any, ...]) -> Any:
        if where is None or self._inside:
            return done()
        kind = "create" if name == "open" and self._would_create(where, facts[0]) else name
        if where == self._log or where.startswith(f"{self._log}."):
            # Nothing reads the log; but a full disk is full for it as well.
            self._fail_lastingly(kind, where)
            return done()
        self.count += 1
        self._fail(kind, where)
        self._inside = True
        try:
            if name in FLUSHES and not self._flush:
                done = _nothing
            if self._recorder is None:
                return done()
            return self._recorder.watch(name, where, done, facts)
        finally:
            self._inside = False

    def _failing(self, name: str, where: str | None, done: Callable[[], int], facts: tuple[Any, ...]) -> int:
        """Fail as functions of C do."""
        try:
            result: int = self._pass(name, where, lambda: done() or 0, facts) or 0
        except OSError as error:
            ctypes.set_errno(error.errno or 0)
            return -1
        return result

    def _fail(self, name: str, where: str) -> None:
        fault = self._fault
        if fault is None:
            return
        if fault.kind == "kill" and fault.at == self.count:
            self._kill(self._getpid(), signal.SIGKILL)
        if fault.kind in SINGLE and fault.at == self.count and name not in PROCESSES - {"spawn"}:
            raise OSError(SINGLE[fault.kind], os.strerror(SINGLE[fault.kind]), where)
        self._fail_lastingly(name, where)

    def _fail_lastingly(self, name: str, where: str) -> None:
        fault = self._fault
        if fault is None or fault.kind not in LASTING or self.count < fault.at or name in PROCESSES:
            return
        if fault.kind == "readonly" or name in ALLOCATING:
            raise OSError(LASTING[fault.kind], os.strerror(LASTING[fault.kind]), where)

    def _is_short(self, where: str | None) -> bool:
        """Whether a write is the one that fills the disk: half of it still fits."""
        fault = self._fault
        full = fault is not None and fault.kind == "full" and self.count + 1 == fault.at
        if not full or where is None or self._inside or where.startswith(self._log):
            return False
        self.count += 1
        return True

    def _would_create(self, where: str, flags: int) -> bool:
        if not flags & os.O_CREAT:
            return False
        try:
            self._lstat(where)
        except OSError:
            return True
        return False

    def _where(self, path: Any, folder: int | None = None) -> str | None:
        """Return the whole path of what a call is about, ``None`` if it is outside of the endpoint."""
        if isinstance(path, int):
            where = self._readlink(f"/proc/self/fd/{path}").removesuffix(" (deleted)")
        else:
            above = os.getcwd() if folder is None else self._readlink(f"/proc/self/fd/{folder}")
            where = os.path.normpath(os.path.join(above, os.fsdecode(path)))
        return where if where == self._root or where.startswith(f"{self._root}/") else None

    def _replace(self, module: Any, name: str, made: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
        plain = getattr(module, name)
        tapped = made(name, plain)
        setattr(module, name, tapped)
        for supports in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if plain in supports:
                supports.add(tapped)


def _nothing() -> None:
    return None
