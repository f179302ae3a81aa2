"""Where audit lines go: a file that is rotated by size, or a stream (NFR-AUD-001)."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_MODE = 0o640
"""Addresses and device ids are nobody else's business; the group may be the log shipper's."""


@dataclass(slots=True)
class RotatedFile:
    """``audit.log``, and ``audit.log.1`` (the latest) to ``audit.log.N``.

    A file that somebody else moved away, such as logrotate, is noticed before the next write. What is no regular file
    (``/dev/null``, a FIFO) is written to and never rotated.
    """

    path: Path
    max_bytes: int
    keep: int
    """Older files that are kept; 0: at its limit the file starts again."""
    _descriptor: int = -1
    _torn: bool = False
    """The last write ended in the middle of a line."""

    def write(self, lines: bytes) -> None:
        """Append whole lines; raise ``OSError``."""
        size = self._ready(len(lines))
        view = memoryview(b"\n" + lines if self._torn else lines)
        self._torn = False
        done = 0
        try:
            while done < len(view):
                done += os.write(self._descriptor, view[done:])
        except OSError:
            # Half a line must not become half of the next one. Cutting it off also frees what a full disk lacks.
            self._torn = done > 0
            with contextlib.suppress(OSError):
                if size is not None:
                    os.ftruncate(self._descriptor, size)
                    self._torn = False
            raise

    def reopen(self) -> None:
        """Open again by name."""
        self.close()
        self._open()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _ready(self, more: int) -> int | None:
        """Have the right file open, with room for more; return its size, ``None`` if it is no regular file."""
        if self._descriptor < 0:
            self._open()
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        if not self._is_there(status):
            self.reopen()
            status = os.fstat(self._descriptor)
        if status.st_size and status.st_size + more > self.max_bytes:
            self._rotate()
            return 0
        return status.st_size

    def _is_there(self, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(self.path.lstat(), status)
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        self._descriptor = os.open(self.path, _FLAGS, _MODE)

    def _rotate(self) -> None:
        """Move each file on by one; renames, so that a kill at any point loses no line."""
        for number in range(self.keep, 0, -1):
            older = self._numbered(number)
            newer = self.path if number == 1 else self._numbered(number - 1)
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if self.keep == 0:
            self.path.unlink(missing_ok=True)
        self.reopen()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


@dataclass(frozen=True, slots=True)
class Stream:
    """An open descriptor, such as standard output."""

    descriptor: int

    def write(self, lines: bytes) -> None:
        """Write whole lines; raise ``OSError``."""
        view = memoryview(lines)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def reopen(self) -> None:
        """Nothing: it has no name."""

    def close(self) -> None:
        """Leave it open: it is not ours."""
