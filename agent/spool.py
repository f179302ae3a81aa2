"""Records of attempts that the server has not taken yet: one durable file each, named by its record id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from repo_server.core.wire import UpdateRecord

MAX_RECORDS = 2000


@dataclass(frozen=True, slots=True)
class Spooled:
    """What a ``put`` did."""

    is_new: bool
    """False: a record with this id was there already, and stays as it is."""
    dropped: tuple[str, ...] = ()
    """Ids of the oldest records, which had to go because the spool was full."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What is in the spool, oldest attempt first."""

    records: tuple[UpdateRecord, ...]
    damaged: tuple[str, ...] = ()
    """Names of files that were unreadable; they have been removed."""


class Spool:
    """A folder of records. Constructing it touches nothing."""

    def __init__(self, folder: Path, max_records: int = MAX_RECORDS) -> None:
        self._folder = folder
        self._max_records = max_records

    def put(self, record: UpdateRecord) -> Spooled:
        """Keep a record durably; the same id twice is one record. Raises ``LocalFailure``."""
        raise NotImplementedError

    def pending(self) -> Pending:
        """Return everything that waits."""
        raise NotImplementedError

    def discard(self, record_id: str) -> None:
        """Forget a record that the server has taken or will never take; idempotent."""
        raise NotImplementedError
