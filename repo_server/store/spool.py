"""What must not be lost while the database is away: a bounded queue on disk (design §7, promise 1).

A folder of segments, ``<number>.spool``, each a row of entries: marker, length, CRC-32 and the bytes. An entry is on
the disk before it is acknowledged. After a kill or a power cut, what is no whole entry is passed over: the end of a
write that was cut off, NULs, foreign bytes. A segment goes when all of it is in the database; replaying it again after
a crash is the database's business to notice.

::

    SpoolError
    └── SpoolFull     it holds as much as it may

The methods block and are called by one task at a time; the counters may be read by anybody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from repo_server.tree.treeio import sync_folder

_MARKER = b"\xc5SPL"
_HEAD = struct.Struct(">4sII")
SUFFIX, _DAMAGED = ".spool", ".damaged"
_KEPT_DAMAGED = 3
SEGMENT_BYTES = 4 * 1024 * 1024
MAX_ENTRY_BYTES = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


class SpoolError(Exception):
    """Nothing can be put into the spool now."""


class SpoolFull(SpoolError):
    """The spool holds as much as it may."""


@dataclass(slots=True)
class _Segment:
    path: Path
    size: int
    entries: int


@dataclass(slots=True)
class Spool:
    """A queue of byte strings in a folder that nobody else uses."""

    folder: Path
    max_bytes: int
    segment_bytes: int = SEGMENT_BYTES
    entries: int = 0
    """How many wait."""
    size: int = 0
    """Bytes on disk."""
    damaged: int = 0
    """Segments in which something before the end was unreadable, since the start."""
    _segments: deque[_Segment] = field(default_factory=deque)
    _next: int = 1
    _open: int | None = None
    """Descriptor of the last segment, while it may grow."""
    _read: int = 0
    """Offset in the first segment up to which it has been taken."""
    _taken: int = 0
    """Entries of the first segment before that."""

    def open(self) -> None:
        """Make the folder, and count what an earlier process left; raise ``OSError``."""
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if not path.stem.isdecimal():
                continue
            self._next = max(self._next, int(path.stem) + 1)
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                self._add(_Segment(path, len(data), sum(1 for _ in _entries(data, 0))))
        if self.entries:
            _log.warning("%d entries wait in %s for the database", self.entries, self.folder)

    def close(self) -> None:
        """Let go of the segment that may grow; what waits stays on the disk."""
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def append(self, items: Sequence[bytes]) -> None:
        """Put entries at the end and return when the disk has them, all or none; raise ``SpoolError``."""
        data = b"".join(_HEAD.pack(_MARKER, len(item), zlib.crc32(item)) + item for item in items)
        if any(len(item) > MAX_ENTRY_BYTES for item in items):
            raise SpoolError(f"an entry has more than {MAX_ENTRY_BYTES} bytes")
        if self.size + len(data) > self.max_bytes:
            raise SpoolFull(f"the spool {self.folder} holds {self.size} bytes and may hold {self.max_bytes}")
        try:
            descriptor, segment = self._growing()
            self._write(descriptor, segment, data)
        except OSError as error:
            raise SpoolError(f"the spool {self.folder} cannot be written: {error.strerror}") from error
        segment.size += len(data)
        segment.entries += len(items)
        self.size += len(data)
        self.entries += len(items)

    def peek(self, limit: int) -> list[bytes]:
        """Return the oldest entries, at most ``limit`` and of one segment; none if there are none."""
        while self._segments:
            found, end = self._look(self._segments[0], limit)
            if found:
                return found
            self._finish(self._segments[0], end)
        return []

    def advance(self, count: int) -> None:
        """Forget the oldest entries, which ``peek`` returned: they are in the database."""
        segment = self._segments[0]
        for _, end in _entries(self._data(segment) or b"", self._read):
            self._read = end
            self._taken += 1
            self.entries -= 1
            count -= 1
            if count == 0:
                break
        if self._taken >= segment.entries:
            self._finish(segment, self._read)

    def _look(self, segment: _Segment, limit: int) -> tuple[list[bytes], int]:
        found = list(islice(_entries(self._data(segment) or b"", self._read), limit))
        return [item for item, _ in found], found[-1][1] if found else self._read

    def _data(self, segment: _Segment) -> bytes | None:
        """Return what was acknowledged of a segment (a failed append may have left more), or ``None``."""
        try:
            return segment.path.read_bytes()[: segment.size]
        except OSError as error:
            _log.error("%s cannot be read: %s", segment.path, error)
            return None

    def _finish(self, segment: _Segment, end: int) -> None:
        """Remove the first segment; keep it beside the others if there was damage within."""
        if self._open is not None and segment is self._segments[-1]:
            self.close()
        data = self._data(segment)
        self._segments.popleft()
        self.size -= segment.size
        self.entries -= segment.entries - self._taken
        self._read = self._taken = 0
        try:
            if data is None or _hole(data):
                _log.error("%s is damaged; what could be read of it is in the database", segment.path)
                self._set_aside(segment)
            else:
                if end != segment.size:
                    _log.warning("the last %d bytes of %s are no entry, as a write that was cut off leaves them",
                                 segment.size - end, segment.path)  # fmt: skip
                segment.path.unlink()
            sync_folder(self.folder)
        except OSError as error:
            # It is replayed after the next start, which changes nothing.
            _log.warning("%s cannot be removed: %s", segment.path, error)

    def _set_aside(self, segment: _Segment) -> None:
        self.damaged += 1
        segment.path.replace(segment.path.with_suffix(_DAMAGED))
        for path in sorted(self.folder.glob(f"*{_DAMAGED}"))[:-_KEPT_DAMAGED]:
            path.unlink()

    def _growing(self) -> tuple[int, _Segment]:
        if self._open is not None and self._segments[-1].size >= self.segment_bytes:
            self.close()
        if self._open is None:
            path = self.folder / f"{self._next:020}{SUFFIX}"
            self._next += 1
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._open = os.open(path, flags, 0o600)
            self._add(_Segment(path, 0, 0))
            sync_folder(self.folder)
        return self._open, self._segments[-1]

    def _write(self, descriptor: int, segment: _Segment, data: bytes) -> None:
        """Write behind what is there and wait for the disk; on failure nothing of it counts."""
        try:
            at = segment.size
            for start in range(0, len(data), 1 << 20):
                part = data[start : start + (1 << 20)]
                while part:
                    written = os.pwrite(descriptor, part, at)
                    part, at = part[written:], at + written
            os.fdatasync(descriptor)
        except OSError:
            # After a failed fsync nothing is known of the file: it gets no more entries.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, segment.size)
            self.close()
            if segment.size == 0:
                self._segments.pop()
                with contextlib.suppress(OSError):
                    segment.path.unlink()
            raise

    def _add(self, segment: _Segment) -> None:
        self._segments.append(segment)
        self.size += segment.size
        self.entries += segment.entries


def _entries(data: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """Yield whole entries and where they end, passing over what is none."""
    at = start
    while (at := data.find(_MARKER, at)) >= 0:
        if at + _HEAD.size > len(data):
            return
        _, length, checksum = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        item = data[at + _HEAD.size : end]
        if length > MAX_ENTRY_BYTES or len(item) != length or zlib.crc32(item) != checksum:
            at += 1
            continue
        yield item, end
        at = end


def _hole(data: bytes) -> bool:
    """Whether a whole entry stands behind something that is none."""
    at = 0
    for item, end in _entries(data, 0):
        if end - len(item) - _HEAD.size != at:
            return True
        at = end
    return False
