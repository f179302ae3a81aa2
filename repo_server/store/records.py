"""Update log records: durable before they are acknowledged, many requests in one commit (FR-LOG-001, design §7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from repo_server.core.wire import UpdateRecord
from repo_server.store import DatabaseAway
from repo_server.store.database import DATA_ERRORS, RUN_SECONDS, Connection, Database
from repo_server.store.text import clean, clean_json

MAX_QUEUED = 20_000
"""Records of all requests that wait for the next commit; beyond that agents are asked to come back."""
_MAX_COMMIT = 5_000

_log = logging.getLogger(__name__)

_REFUSALS = (*DATA_ERRORS, RecursionError)
"""The record's own fault: it will never be stored."""

_COLUMNS = {
    "record_id": "uuid",
    "device_id": "uuid",
    "component_name": "text",
    "trigger_source": "text",
    "requested_version": "text",
    "current_version": "text",
    "status": "text",
    "attempt_timestamp": "timestamptz",
    "completion_timestamp": "timestamptz",
    "error_code": "text",
    "error_message": "text",
    "details": "jsonb",
    "received_at": "timestamptz",
}
_INSERT = f"""
INSERT INTO agent_update_status_log ({", ".join(_COLUMNS)})
SELECT {", ".join(_COLUMNS)}
FROM unnest({", ".join(f"%({name})s::{kind}[]" for name, kind in _COLUMNS.items())}) AS t ({", ".join(_COLUMNS)})
ON CONFLICT (record_id) DO NOTHING
"""  # noqa: S608 -- built from the constants above
_KNOW_DEVICES = """
INSERT INTO devices (device_id, name, device_type, status)
SELECT id, id::text, 'endpoint', 'active' FROM unnest(%(ids)s::uuid[]) AS t (id) ORDER BY t.id
ON CONFLICT (device_id) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that the database will never take."""

    record: UpdateRecord
    message: str


@dataclass(slots=True)
class _Request:
    device_id: str
    records: Sequence[UpdateRecord]
    now: datetime
    done: asyncio.Future[tuple[Refused, ...]]


@dataclass(slots=True)
class RecordWriter:
    """Collects the records of all requests that arrive during one commit and writes them with the next."""

    database: Database
    _queue: list[_Request] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def store(self, device_id: str, records: Sequence[UpdateRecord], now: datetime) -> tuple[Refused, ...]:
        """Return when all records are durable or refused; raise ``DatabaseAway``."""
        if sum(len(item.records) for item in self._queue) + len(records) > MAX_QUEUED:
            raise DatabaseAway("too many records wait for the database")
        request = _Request(device_id, records, now, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._wake.set()
        try:
            async with asyncio.timeout(3 * RUN_SECONDS):
                return await request.done
        except TimeoutError:
            raise DatabaseAway("the database takes too long") from None

    async def run(self, stop: asyncio.Event) -> None:
        """Write until ``stop`` is set; whoever waits then is told to come back."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                woken = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait({stopped, woken}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                self._wake.clear()
                await self.flush()
        finally:
            stopped.cancel()

    async def flush(self) -> None:
        """Write everything that waits."""
        while self._queue:
            batch = self._take()
            try:
                await self._write(batch)
            except DatabaseAway as error:
                _fail(batch, str(error))
            except Exception:  # noqa: BLE001 -- see below
                # A fault of ours; agents keep their records and must not be without a server for it.
                _log.exception("records could not be written")
                _fail(batch, "the server failed")

    def _take(self) -> list[_Request]:
        total = 0
        batch: list[_Request] = []
        while self._queue and (not batch or total + len(self._queue[0].records) <= _MAX_COMMIT):
            request = self._queue.pop(0)
            total += len(request.records)
            if not request.done.done():
                batch.append(request)
        return batch

    async def _write(self, batch: list[_Request]) -> None:
        rows = [(request.device_id, record, request.now) for request in batch for record in request.records]
        try:
            await self.database.run(_statements(rows))
        except _REFUSALS as error:
            if len(batch) > 1:
                # Something in it is refused; find out whose it is without the others.
                for request in batch:
                    await self._write([request])
                return
            await self._write_one_by_one(batch[0], error)
            return
        for request in batch:
            _finish(request, ())

    async def _write_one_by_one(self, request: _Request, error: Exception) -> None:
        if len(request.records) == 1:
            _log.warning("record %s refused by the database: %s", request.records[0].record_id, error)
            _finish(request, (Refused(request.records[0], _reason(error)),))
            return
        refused = []
        for record in request.records:
            try:
                await self.database.run(_statements([(request.device_id, record, request.now)]))
            except _REFUSALS as single:
                _log.warning("record %s refused by the database: %s", record.record_id, single)
                refused.append(Refused(record, _reason(single)))
        _finish(request, tuple(refused))


def _fail(batch: list[_Request], why: str) -> None:
    for request in batch:
        if not request.done.done():
            request.done.set_exception(DatabaseAway(why))


def _finish(request: _Request, refused: tuple[Refused, ...]) -> None:
    if not request.done.done():
        request.done.set_result(refused)


def _reason(error: Exception) -> str:
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or "the database refuses it"
    return "it is nested too deeply"


def _statements(rows: list[tuple[str, UpdateRecord, datetime]]) -> Callable[[Connection], Any]:
    table = [_row(*row) for row in rows]
    values = {name: [row[index] for row in table] for index, name in enumerate(_COLUMNS)}
    devices = sorted({device_id for device_id, _, _ in rows})

    async def write(connection: Connection) -> None:
        await connection.execute(_KNOW_DEVICES, {"ids": devices})
        await connection.execute(_INSERT, values)

    return write


def _row(device_id: str, record: UpdateRecord, now: datetime) -> tuple[Any, ...]:
    return (
        record.record_id,
        device_id,
        clean(record.component_name, 50),
        clean(record.trigger_source, 50),
        clean(record.requested_version, 50),
        clean(record.current_version, 50),
        record.status.value,
        record.attempt_timestamp,
        record.completion_timestamp,
        None if record.error_code is None else clean(str(record.error_code), 64),
        clean(record.error_message, 4096),
        None if record.details is None else clean_json(record.details),
        now,
    )
