"""``updater.log``: JSON lines, rotated by size and count, mode 0600 (FR-LOG-001, FR-LOG-002, NFR-SEC-007)."""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import os
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.codes import Code
from agent.platform.files import FILES

_MAX_TEXT = 16 * 1024
"""Characters of one text in an event: a component's output must not fill the disk."""


class Severity(enum.StrEnum):
    """How much it matters."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Log:
    """Writes events. A disk that refuses them never stops an update: the event goes to stderr instead.

    Nothing is held open between events, so that several processes can write and rotate the same log.
    """

    def __init__(self, path: Path, now: Callable[[], datetime], *, max_bytes: int, max_files: int) -> None:
        self._path = path
        self._now = now
        self._max_bytes = max_bytes
        self._max_files = max_files

    def event(
        self,
        severity: Severity,
        message: str,
        *,
        code: Code = Code.OK,
        component: str | None = None,
        from_version: str | None = None,
        to_version: str | None = None,
        attempt_id: str | None = None,
        **details: Any,
    ) -> None:
        """Write one line: ``timestamp``, ``severity``, ``code`` (number), ``code_name``, ``message``, then the rest."""
        facts = {
            "timestamp": self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "severity": severity,
            "code": int(code),
            "code_name": code.name,
            "message": message,
            "component": component,
            "from_version": from_version,
            "to_version": to_version,
            "attempt_id": attempt_id,
            **details,
        }
        line = json.dumps({key: _plain(value) for key, value in facts.items() if value is not None}) + "\n"
        try:
            self._append(line.encode())
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):  # stderr may be closed; there is nowhere left to say it
                sys.stderr.write(f"cannot write {self._path} ({error.strerror}): {line}")

    def info(self, message: str, **fields: Any) -> None:
        """Write an event of severity ``info``; ``fields`` as in ``event``."""
        self.event(Severity.INFO, message, **fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Write an event of severity ``warning``."""
        self.event(Severity.WARNING, message, **fields)

    def error(self, message: str, **fields: Any) -> None:
        """Write an event of severity ``error``."""
        self.event(Severity.ERROR, message, **fields)

    def critical(self, message: str, **fields: Any) -> None:
        """Write an event of severity ``critical``."""
        self.event(Severity.CRITICAL, message, **fields)

    def _append(self, line: bytes) -> None:
        descriptor = self._open()
        try:
            size = os.fstat(descriptor).st_size
            if size and size + len(line) > self._max_bytes:
                # On Windows who reads it may be in the way: rather a log that is too long than an update that waits.
                with contextlib.suppress(PermissionError):
                    self._rotate(descriptor)
                os.close(descriptor)
                descriptor = self._open()
                size = os.fstat(descriptor).st_size
            if size and FILES.read_at(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a full disk or a power cut left half a line
            # One write with O_APPEND is one line, also when the daemon and a `checknow` write at once.
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        descriptor = FILES.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            # A FIFO that nobody reads would be waited for, and a device such as /dev/null be made private.
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a regular file")
        FILES.make_private(descriptor)
        return descriptor

    def _rotate(self, descriptor: int) -> None:
        """Shift ``.1`` to ``.2`` and so on; of several processes that want to, one does."""
        FILES.lock(descriptor, wait=True)  # given back when the descriptor is closed
        try:
            if not os.path.samestat(os.fstat(descriptor), self._path.lstat()):
                return
        except FileNotFoundError:
            return
        for number in range(self._max_files - 1, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                FILES.replace(self._numbered(number - 1), self._numbered(number), patiently=False)
        # Last, because from here on others open a new file and hold another lock.
        if self._max_files > 1:
            FILES.replace(self._path, self._numbered(1), patiently=False)
        else:
            self._path.unlink()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    text = str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}… ({len(text)} characters)"
