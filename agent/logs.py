"""``updater.log``: JSON lines, rotated by size and count, mode 0600 (FR-LOG-001, FR-LOG-002, NFR-SEC-007)."""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.codes import Code


class Severity(enum.StrEnum):
    """How much it matters."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Log:
    """Writes events. A disk that refuses them never stops an update: the event goes to stderr instead."""

    def __init__(self, path: Path, now: Callable[[], datetime], *, max_bytes: int, max_files: int) -> None:
        raise NotImplementedError

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
        """Write one line."""
        raise NotImplementedError

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

    def close(self) -> None:
        """Close the file."""
        raise NotImplementedError
