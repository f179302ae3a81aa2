"""The audit: one JSON line per request, made at once, written by a thread, never waited for (NFR-AUD-001).

The event loop encodes a line into a buffer and hands the buffer over a few times a second. What cannot be written, or
does not fit because the disk is too slow, is counted and said: in the log, in ``/readyz`` and as a metric.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import msgspec

HAND_OVER_BYTES = 256 * 1024
MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Lines that wait for a slow disk; half a minute of ten thousand requests a second."""
_PATIENCE_SECONDS = 5.0
"""How long the end waits for a disk that does not answer."""
_PATH_CHARACTERS = 512
_END = b"\n"

_log = logging.getLogger(__name__)


class Line(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One request. What comes after ``duration_ms`` is there if there is something to say."""

    time: datetime
    """When it was answered."""
    address: str
    method: str
    path: str
    auth_id: str | None
    """``secret:`` and the secret's id, never the secret; ``token:`` and the token's name."""
    auth: str
    """``success``, ``failure``, or ``none`` where nothing was asked for."""
    status: int
    duration_ms: float
    request: Any = None
    """What was asked: for a check the device, os, arch, channel and components with versions."""
    result: Any = None
    """What was answered: for a check the components and versions offered; for a package its name and channel."""
    error_code: str | None = None
    error: str | None = None


class Sink(Protocol):
    """Where lines go. Called in the audit's own thread only."""

    def write(self, lines: bytes) -> None:
        """Write whole lines; raise ``OSError``."""

    def reopen(self) -> None:
        """Open again by name, for a file that somebody else has moved away."""

    def close(self) -> None:
        """Let go."""


@dataclass(slots=True)
class Audit:
    """Takes lines on the event loop and has them written in a thread."""

    sinks: tuple[Sink, ...]
    lost: int = 0
    """Lines that were not written, since the start."""
    written: int = 0
    error: str | None = None
    """Why the last attempt to write failed; ``None`` once one succeeds."""
    _buffer: bytearray = field(default_factory=bytearray)
    _lines: int = 0
    _waiting: int = 0
    """Bytes handed over and not yet written; counted up and down by different threads, each in steps of its own."""
    _done: int = 0
    _queue: queue.SimpleQueue[tuple[bytearray, int] | Callable[[], None] | None] = field(
        default_factory=queue.SimpleQueue
    )
    _thread: threading.Thread | None = None
    _encoder: msgspec.json.Encoder = field(default_factory=msgspec.json.Encoder)

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def add(self, line: Line) -> None:
        """Take a line. On the event loop only; never blocks, never fails."""
        buffer = self._buffer
        try:
            self._encoder.encode_into(line, buffer, -1)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
            self._lose(1, "a line could not be encoded")
            return
        buffer += _END
        self._lines += 1
        if len(buffer) >= HAND_OVER_BYTES:
            self.hand_over()

    def hand_over(self) -> None:
        """Give what has come together to the thread. On the event loop only."""
        if not self._lines:
            return
        if self._behind() > MAX_WAITING_BYTES:
            self._lose(self._lines, "the disk is too slow")
        else:
            self._waiting += len(self._buffer)
            self._queue.put((self._buffer, self._lines))
        self._buffer, self._lines = bytearray(), 0

    def reopen(self) -> None:
        """Open files again by name (SIGHUP)."""
        self.hand_over()
        for sink in self.sinks:
            self._queue.put(sink.reopen)

    def close(self) -> None:
        """Write everything that was taken, and end the thread."""
        self.hand_over()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(_PATIENCE_SECONDS)
            if self._thread.is_alive():
                _log.error("the audit's last %d bytes are not written: the disk does not answer", self._behind())

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                break
            if isinstance(item, tuple):
                self._write(*item)
            else:
                self._attempt(item)
        for sink in self.sinks:
            self._attempt(sink.close)

    def _write(self, lines: bytearray, count: int) -> None:
        ended_well = True
        for sink in self.sinks:
            ended_well = self._attempt(lambda sink=sink: sink.write(lines)) and ended_well  # type: ignore[misc]  # bound now
        self._done += len(lines)
        if ended_well:
            self.error = None
            self.written += count
        else:
            self.lost += count

    def _attempt(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except OSError as error:
            text = f"audit lines are not written: {error}"
            if self.error is None:
                _log.error(text)
            self.error = text
            return False
        return True

    def _behind(self) -> int:
        return self._waiting - self._done

    def _lose(self, count: int, why: str) -> None:
        text = f"audit lines are lost: {why}"
        if self.error is None:
            _log.error(text)
        self.error = text
        self.lost += count


def shortened(path: str) -> str:
    """Return a path that does not fill the disk."""
    return path if len(path) <= _PATH_CHARACTERS else f"{path[:_PATH_CHARACTERS]}…"
