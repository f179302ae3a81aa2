"""Fetches a package file: resumed, bounded, verified while it arrives (FR-UPD-005, FR-UPD-006, NFR-PER-002)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.http import Transport
from repo_server.core.wire import Update


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Bounds of one download; what arrived by then is kept and resumed in the next cycle."""

    deadline_seconds: float = 6 * 3600.0
    slowest_bytes_per_second: float = 1024.0
    """Averaged over ``window_seconds``; a slower source is left for the next."""
    window_seconds: float = 30.0
    attempts_per_source: int = 3
    """In a row without a new byte."""
    spare_bytes: int = 32 * 1024 * 1024
    """Space that must be left on the disk."""


class Downloader:
    """Fetches from the servers, then from the mirrors, in order."""

    def __init__(
        self,
        transport: Transport,
        servers: Sequence[str],
        mirrors: Sequence[str],
        *,
        sleep: Callable[[float], None],
        random: Callable[[], float],
        monotonic: Callable[[], float],
        free_bytes: Callable[[Path], int],
        limits: DownloadLimits = DownloadLimits(),
    ) -> None:
        raise NotImplementedError

    def fetch(self, update: Update, into: Path) -> Path:
        """Return the file ``into/<sha256>`` with exactly the announced bytes, durable.

        Raises ``NetworkFailure``, ``TrustRefused`` (HASH_MISMATCH, SIZE_MISMATCH; nothing is left then) or
        ``LocalFailure`` (DISK_FULL before the first byte if it cannot fit, FR-UPD-008).
        """
        raise NotImplementedError
