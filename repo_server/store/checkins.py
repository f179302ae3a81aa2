"""Check-ins: the newest of each device, written in batches; lost rather than waited for (design §7, promise 4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from repo_server.core.channels import AssignedChannel
from repo_server.core.wire import CheckRequest
from repo_server.store import DatabaseAway
from repo_server.store.backlog import Backlog, CheckIn
from repo_server.store.counters import Counters
from repo_server.store.database import DATA_ERRORS, Connection, Database
from repo_server.store.identity import rename
from repo_server.store.sightings import BESIDE, KNOWN, SHARED, TAKEN_UP, UPDATE, UPSERT, row_of
from repo_server.store.tables import devices_are_ours
from repo_server.store.text import clean_json
from repo_server.waiting import first_of

BATCH = 1000
"""Rows of one statement."""
FLUSH_SECONDS = 0.5
AT_A_TIME = 2000
"""Rows of one flush, or a tenth of what waits if that is more: a rush of checks is written over some seconds, for the
database's work comes out of theirs, and a device that asks again meanwhile needs one row only."""
_PARTS = 10
MANY = 50_000
"""Devices that wait; from here on the next flush follows at once."""
WHILE_WRITING = "SET LOCAL synchronous_commit = off; SET LOCAL enable_seqscan = off"
"""A check-in comes again; it is not worth a wait for the disk. And a table that PostgreSQL has not analysed yet, as
every new one for its first minute, was read from end to end with each batch to find the few ids that are shared."""
MAX_SHARED = 10_000
"""Ids seen to be shared that are kept in memory; the database knows all."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CheckInWriter:
    """Takes check-ins at once and writes them later, each device at most once per batch."""

    database: Database
    counters: Counters
    shared: dict[str, None] = field(default_factory=dict)
    """Ids that more than one machine was seen to use since the start; the first of them leave when there are many."""
    _backlog: Backlog = field(init=False)
    _full: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._backlog = Backlog(self.counters)

    def put(
        self,
        device_id: str,
        previous_ids: Sequence[str],
        request: CheckRequest,
        channel: AssignedChannel,
        now: datetime,
    ) -> None:
        """Take a check-in; never blocks, never fails."""
        backlog = self._backlog
        backlog.put(device_id, CheckIn(tuple(previous_ids), request, channel, now))
        if len(backlog) >= MANY:
            self._full.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Write batches until ``stop`` is set, then what is left, if the database is there."""
        while not stop.is_set():
            await first_of(stop.wait(), self._full.wait(), seconds=FLUSH_SECONDS)
            await first_of(stop.wait(), self.database.wait_ready())
            await self.flush(max(AT_A_TIME, len(self._backlog) // _PARTS))
        await self.flush()

    async def flush(self, most: int | None = None) -> None:
        """Write what waits longest, or everything; stop at the first batch that the database does not take."""
        # What comes in meanwhile is left to come together, else many small batches would follow one another.
        left = len(self._backlog) if most is None else most
        while left > 0 and (batch := self._backlog.take(BATCH)):
            left -= len(batch)
            try:
                await self._write(batch)
            except DatabaseAway as error:
                self._backlog.give_back(batch)
                # A database that answers and takes nothing (a full disk, say) is not asked without a pause.
                self._full.clear()
                if self.database.ready:
                    self.counters.failing = str(error)
                return
            except Exception:  # noqa: BLE001 -- see below
                # A fault of ours; agents must not be without a server for it.
                _log.exception("%d check-ins could not be written and are dropped", len(batch))
                self.counters.check_ins_dropped += len(batch)
        if len(self._backlog) < MANY:
            self._full.clear()

    async def _write(self, batch: dict[str, CheckIn]) -> None:
        batch = _folded(batch)
        try:
            await rename(self.database, {device_id: item.previous_ids for device_id, item in batch.items()})
            shared = await self.database.run(_statements(batch))
            self.counters.failing = None
            self.counters.check_ins_written += len(batch)
            self.counters.check_in_batches += 1
            self.counters.last_check_in_batch = len(batch)
            for device_id in shared:
                self._note_shared(device_id)
        except (*DATA_ERRORS, RecursionError) as error:
            if len(batch) == 1:
                await self._write_beside(batch, error)
                return
            # One row that the database refuses must not take the others with it: halve until it stands alone.
            ids = list(batch)
            for part in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                await self._write({device_id: batch[device_id] for device_id in part})

    def _note_shared(self, device_id: str) -> None:
        if device_id not in self.shared:
            _log.warning(
                "%s is used by more than one machine: what it reports goes back and forth",
                device_id,
                extra={"event": "shared_id", "device_id": device_id},
            )
        self.shared[device_id] = None
        if len(self.shared) > MAX_SHARED:
            del self.shared[next(iter(self.shared))]

    async def _write_beside(self, batch: dict[str, CheckIn], refusal: Exception) -> None:
        """Keep a device that ``devices`` refuses (it may have constraints that we do not know) where it is seen."""
        _log.error("check-in of %s refused by the database: %s", next(iter(batch)), refusal)
        try:
            await self.database.run(_statements(batch, beside=True))
        except (*DATA_ERRORS, RecursionError):
            self.counters.check_ins_dropped += 1


def _folded(batch: dict[str, CheckIn]) -> dict[str, CheckIn]:
    """Leave out what devices said under ids that they have changed since: they would have a row for each (L53)."""
    changed = [device_id for device_id, item in batch.items() if item.previous_ids]
    if not changed:
        return batch
    kept = dict(batch)
    for device_id in sorted(changed, key=lambda changed_id: batch[changed_id].at):
        item = kept.get(device_id)
        if item is None:
            continue
        former = dict.fromkeys(item.previous_ids)
        for old in item.previous_ids:
            if old != device_id and old in kept and kept[old].at <= item.at:
                former |= dict.fromkeys(kept.pop(old).previous_ids)
        former.pop(device_id, None)
        kept[device_id] = msgspec.structs.replace(item, previous_ids=tuple(former))
    return kept


def _statements(batch: dict[str, CheckIn], *, beside: bool = False) -> Callable[[Connection], Any]:
    """Return what writes a batch and returns the ids that turned out to be shared."""
    document = clean_json(
        [row_of(device_id, item.previous_ids, item.request, item.at, item.channel) for device_id, item in batch.items()]
    )

    async def write(connection: Connection) -> list[str]:
        await connection.execute(WHILE_WRITING)
        if beside:
            await connection.execute(BESIDE, {"batch": document, "known": []})
        elif await devices_are_ours(connection):
            await connection.execute(UPSERT, {"batch": document})
        else:
            known = await (await connection.execute(KNOWN, {"ids": list(batch)})).fetchall()
            values = {"batch": document, "known": [row[0] for row in known]}
            for statement in (UPDATE, TAKEN_UP, BESIDE):
                await connection.execute(statement, values)
        cursor = await connection.execute(SHARED, {"since": min(item.at for item in batch.values())})
        return [str(row[0]) for row in await cursor.fetchall()]

    return write
