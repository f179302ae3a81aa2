"""Records of attempts that the server has not taken yet: one durable file each, named by its record id."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent import durable
from agent.errors import local_failure
from repo_server.core.wire import UpdateRecord

MAX_RECORDS = 2000
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Spooled:
    """What a ``put`` did."""

    is_new: bool
    """False: a record with this id was there already, and stays as it is."""
    dropped: tuple[str, ...] = ()
    """Ids of the oldest records, which had to go because the spool was full; they belong into the log."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What is in the spool, oldest attempt first."""

    records: tuple[UpdateRecord, ...]
    damaged: tuple[str, ...] = ()
    """Sentences about files that were unreadable; they have been removed. They belong into the log."""


class Spool:
    """A folder of records. Constructing it touches nothing."""

    def __init__(self, folder: Path, max_records: int = MAX_RECORDS) -> None:
        self._folder = folder
        self._max_records = max_records

    def put(self, record: UpdateRecord) -> Spooled:
        """Keep a record durably; the same id twice is one record. Raises ``LocalFailure``."""
        path = self._path(str(record.record_id))
        if durable.load(path, fall_back=False).payload is not None:
            self._sync()
            return Spooled(is_new=False)
        durable.save(path, {"record": _as_text(record)}, keep_previous=False)
        excess = len(self._files()) - self._max_records
        if excess <= 0:
            return Spooled(is_new=True)
        others = [item for item in self.pending().records if item.record_id != record.record_id]
        dropped = tuple(str(item.record_id) for item in others[:excess])
        for record_id in dropped:
            self.discard(record_id)
        return Spooled(is_new=True, dropped=dropped)

    def pending(self) -> Pending:
        """Return everything that waits; raise ``LocalFailure`` when the folder cannot be read."""
        records: list[UpdateRecord] = []
        damaged: list[str] = []
        for path in self._files():
            record = _record(path)
            if isinstance(record, str):
                damaged.append(record)
                durable.remove(path)
            else:
                records.append(record)
        records.sort(key=lambda record: (record.attempt_timestamp, record.record_id.hex))
        return Pending(tuple(records), tuple(damaged))

    def discard(self, record_id: str) -> None:
        """Forget a record that the server has taken or will never take; idempotent. Raises ``LocalFailure``."""
        durable.remove(self._path(record_id))

    def _sync(self) -> None:
        """Make the names durable: whoever put a record here may have been killed before that."""
        try:
            durable.sync_folder(self._folder)
        except OSError as error:
            raise local_failure(error, f"flush the spool {self._folder}") from error

    def _path(self, record_id: str) -> Path:
        return self._folder / f"{uuid.UUID(record_id)}{_SUFFIX}"

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX and path.name[0] != ".")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise local_failure(error, f"read the spool {self._folder}") from error


def _as_text(record: UpdateRecord) -> Any:
    """Return a record as JSON has it: what is no text in it, as names of files can be, could never be sent."""
    return json.loads(json.dumps(msgspec.to_builtins(record), ensure_ascii=False).encode(errors="replace"))


def _record(path: Path) -> UpdateRecord | str:
    loaded = durable.load(path, fall_back=False)
    try:
        record = msgspec.convert((loaded.payload or {}).get("record"), UpdateRecord)
    except msgspec.ValidationError as error:
        return loaded.damage or f"{path}: {error}"
    return record if str(record.record_id) == path.stem else f"{path} holds the record {record.record_id}"
