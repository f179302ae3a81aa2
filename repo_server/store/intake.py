"""Takes what must not be lost: into the database, or into the spool until it is there (design §7, FR-LOG-001).

What arrives during one commit goes into the next. While the spool holds anything, everything goes through it, so that
the order stays; it is emptied from the front as soon as the database takes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from repo_server.store import DatabaseAway
from repo_server.store.counters import Counters
from repo_server.store.database import DATA_ERRORS, RUN_SECONDS, Database
from repo_server.store.entries import Entry, decode, encode, writing
from repo_server.store.spool import Spool, SpoolError
from repo_server.waiting import first_of

MAX_QUEUED = 20_000
"""Rows of all requests that wait for the next commit; beyond that agents are asked to come back."""
_MAX_COMMIT = 5_000
_REPLAY = 500
"""Entries that are replayed in one commit."""
_PAUSE_SECONDS = 1.0
"""After a write that failed though the database answers: a full disk, say."""
_MAX_REFUSED_FILE = 16 * 1024 * 1024

_log = logging.getLogger(__name__)

_REFUSALS = (*DATA_ERRORS, RecursionError)
"""The entry's own fault: it will never be stored."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry of one row that the database will never take."""

    entry: Entry
    message: str


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    done: asyncio.Future[tuple[Refused, ...]]


@dataclass(slots=True)
class Intake:
    """Collects entries and writes them in groups; ``run`` must be running."""

    database: Database
    spool: Spool
    counters: Counters
    opened: bool = False
    """Whether it is known what an earlier process left in the spool."""
    _queue: deque[_Waiting] = field(default_factory=deque)
    _queued: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _failed_at: float = float("-inf")

    async def put(self, entry: Entry) -> tuple[Refused, ...]:
        """Return when the entry is durable or refused; raise ``DatabaseAway`` when neither can be said."""
        if self._queued + entry.weight > MAX_QUEUED:
            self.counters.requests_turned_away += 1
            raise DatabaseAway("too many records wait for the database")
        waiting = _Waiting(entry, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._queued += entry.weight
        self._wake.set()
        try:
            async with asyncio.timeout(4 * RUN_SECONDS):
                return await waiting.done
        except TimeoutError:
            raise DatabaseAway("the database takes too long") from None

    async def run(self, stop: asyncio.Event) -> None:
        """Write until ``stop`` is set, and then what waits; raise ``OSError`` if the spool's folder cannot be made."""
        await asyncio.to_thread(self.spool.open)
        self.opened = True
        try:
            while not stop.is_set():
                await self._something_to_do(stop)
                await self._flush()
                await self._replay()
            await self._flush()
        finally:
            await asyncio.to_thread(self.spool.close)

    async def _something_to_do(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        waits: list[Coroutine[Any, Any, Any]] = [stop.wait(), self._wake.wait()]
        timeout = None
        if self.spool.entries and not self._queue:
            pause = self._failed_at + _PAUSE_SECONDS - loop.time()
            if pause > 0:
                timeout = pause
            else:
                waits.append(self.database.wait_ready())
        await first_of(*waits, seconds=timeout)
        self._wake.clear()

    async def _flush(self) -> None:
        """Make everything that waits durable, or say that it is not."""
        while self._queue:
            batch = self._take()
            if not batch:
                continue
            try:
                await self._settle(batch)
            except Exception as error:  # noqa: BLE001 -- see below
                # A fault of ours; agents keep their records and must not be without a server for it.
                _log.exception("records could not be written")
                _fail(batch, f"the server failed: {error}")

    def _take(self) -> list[_Waiting]:
        total = 0
        batch: list[_Waiting] = []
        while self._queue and (not batch or total + self._queue[0].entry.weight <= _MAX_COMMIT):
            waiting = self._queue.popleft()
            self._queued -= waiting.entry.weight
            total += waiting.entry.weight
            if not waiting.done.done():
                batch.append(waiting)
        return batch

    async def _settle(self, batch: list[_Waiting]) -> None:
        if not self.spool.entries:
            try:
                results = await self._write([waiting.entry for waiting in batch])
            except DatabaseAway as error:
                self._say_failing(error)
            else:
                for waiting, refused in zip(batch, results, strict=True):
                    self.counters.records_stored += waiting.entry.weight - len(refused)
                    self.counters.records_refused += len(refused)
                    _finish(waiting, refused)
                return
        await self._spool(batch)

    async def _spool(self, batch: list[_Waiting]) -> None:
        """Put a batch on the disk instead."""
        good: list[tuple[_Waiting, bytes]] = []
        for waiting in batch:
            try:
                good.append((waiting, encode(waiting.entry)))
            except RecursionError as error:
                _finish(waiting, tuple(Refused(part, _reason(error)) for part in waiting.entry.parts()))
        try:
            await asyncio.to_thread(self.spool.append, [data for _, data in good])
        except SpoolError as error:
            if not self.counters.spool_full:
                _log.error("records are not taken, agents keep them: %s", error)
            self.counters.spool_full = True
            self.counters.requests_turned_away += len(good)
            _fail([waiting for waiting, _ in good], "the database is away, and the spool cannot take more")
            return
        self.counters.spool_full = False
        for waiting, _ in good:
            self.counters.records_spooled += waiting.entry.weight
            _finish(waiting, ())

    async def _replay(self) -> None:
        """Write the oldest entries of the spool, as long as nobody new waits and the database takes them."""
        loop = asyncio.get_running_loop()
        while self.spool.entries and self.database.ready and loop.time() >= self._failed_at + _PAUSE_SECONDS:
            items = await asyncio.to_thread(self.spool.peek, _REPLAY)
            try:
                entries, lost = self._decoded(items)
                results = await self._write(entries) if entries else []
            except DatabaseAway as error:
                self._say_failing(error)
                return
            refused = [item for result in results for item in result]
            await asyncio.to_thread(self._keep_refused, [*lost, *(encode(item.entry) for item in refused)])
            if items:
                await asyncio.to_thread(self.spool.advance, len(items))
            self.counters.records_replayed += sum(entry.weight for entry in entries) - len(refused)
            self.counters.records_lost += len(refused) + len(lost)
            self.counters.spool_full = False
            if self._queue:
                return
        if not self.spool.entries and self.database.ready:
            self.counters.spool_full = False

    def _decoded(self, items: Sequence[bytes]) -> tuple[list[Entry], list[bytes]]:
        entries, lost = [], []
        for item in items:
            try:
                entries.append(decode(item))
            except (msgspec.MsgspecError, RecursionError):
                _log.exception("an entry of the spool cannot be read")
                lost.append(item)
        return entries, lost

    async def _write(self, entries: list[Entry]) -> list[tuple[Refused, ...]]:
        """Write entries into the database; return for each what of it was refused. Raise ``DatabaseAway``."""
        try:
            await self.database.run(writing(entries))
        except _REFUSALS as error:
            if len(entries) > 1:
                # Something in it is refused. Halved until it stands alone: one bad record of one device must not cost
                # every other report that waits a commit of its own.
                half = len(entries) // 2
                return [*await self._write(entries[:half]), *await self._write(entries[half:])]
            return [await self._by_parts(entries[0], error)]
        self.counters.record_batches += 1
        self.counters.last_record_batch = sum(entry.weight for entry in entries)
        self.counters.failing = None
        return [()] * len(entries)

    async def _by_parts(self, entry: Entry, error: Exception) -> tuple[Refused, ...]:
        parts: list[Entry] = [*entry.parts()]
        if len(parts) > 1:
            half = len(parts) // 2
            results = [*await self._write(parts[:half]), *await self._write(parts[half:])]
            return tuple(refused for result in results for refused in result)
        _log.warning("refused by the database: %s: %s", entry.name, error)
        return (Refused(entry, _reason(error)),)

    def _keep_refused(self, items: list[bytes]) -> None:
        """Keep what was acknowledged and cannot be stored, for people to look at."""
        path: Path = self.spool.folder / "refused.jsonl"
        if not items or (path.exists() and path.stat().st_size > _MAX_REFUSED_FILE):
            return
        with path.open("ab") as file:
            file.writelines(item + b"\n" for item in items)

    def _say_failing(self, error: DatabaseAway) -> None:
        self._failed_at = asyncio.get_running_loop().time()
        if self.database.ready:
            self.counters.failing = str(error)


def _fail(batch: list[_Waiting], why: str) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(DatabaseAway(why))


def _finish(waiting: _Waiting, refused: tuple[Refused, ...]) -> None:
    if not waiting.done.done():
        waiting.done.set_result(refused)


def _reason(error: Exception) -> str:
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or "the database refuses it"
    return "it is nested too deeply"
