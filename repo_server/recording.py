"""What the routes' ports stand for: the store, or nothing where there is no database; and the store's own tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from repo_server.core.channels import AssignedChannel
from repo_server.core.wire import CheckRequest, UpdateRecord
from repo_server.routes.context import RecordsUnavailable, Rejected
from repo_server.store import DatabaseAway, TooSlow
from repo_server.store.checkins import CheckInWriter
from repo_server.store.counters import Counters
from repo_server.store.database import Database, State
from repo_server.store.devices import DeviceFilter, DeviceReader
from repo_server.store.entries import Records
from repo_server.store.events import EventReader
from repo_server.store.failures import FailureReader
from repo_server.store.intake import Intake
from repo_server.store.source import Source
from repo_server.store.spool import Spool
from repo_server.store.upkeep import Upkeep
from repo_server.supervise import Tasks
from repo_server.telemetry.conditions import Conditions
from repo_server.telemetry.eventlog import EventRecorder

_MEGABYTE = 1_000_000
_EVENTS = "events"
"""Folder of the spool of events, in the state folder."""
_EVENTS_BYTES = 16 * _MEGABYTE
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything that a server with a database remembers with."""

    database: Database
    counters: Counters
    check_ins: CheckInWriter
    intake: Intake
    upkeep: Upkeep
    events: EventRecorder | None
    event_intake: Intake

    @classmethod
    def make(
        cls,
        source: Source,
        spool: Path,
        clock: Callable[[], datetime],
        *,
        spool_megabytes: float,
        keep_months: int,
        device_days: int | None = None,
        migrates: bool = True,
        events: EventRecorder | None = None,
    ) -> Recording:
        """Put the parts together; nothing is touched before ``start``.

        ``events`` of the process that looks at the tree have a spool of their own, beside that of the records.
        """
        database, counters = Database(source, clock, migrates), Counters()
        return cls(
            database,
            counters,
            CheckInWriter(database, counters),
            Intake(database, Spool(spool, int(spool_megabytes * _MEGABYTE)), counters),
            Upkeep(database, clock, keep_months, device_days),
            events,
            Intake(database, Spool(spool.with_name(_EVENTS), _EVENTS_BYTES), Counters()),
        )

    def start(self, tasks: Tasks, stop: asyncio.Event, *, takes: bool = True, keeps: bool = True) -> None:
        """Start what works in the background: what takes from clients, and the upkeep, which one process does."""
        tasks.start("the database", self.database.supervise(stop))
        if takes:
            tasks.start("writing check-ins", self.check_ins.run(stop))
            tasks.start("writing records", self.intake.run(stop))
        if keeps:
            tasks.start("the database's upkeep", self.upkeep.run(stop))
        if keeps and self.events is not None:
            tasks.start("writing events", self.event_intake.run(stop))
            tasks.start("recording events", self.events.run(stop, self.event_intake))

    def describe(self) -> dict[str, Any]:
        """Return the state for ``/readyz``."""
        spool = self.intake.spool
        return self.database.describe() | {"spool": {"entries": spool.entries, "bytes": spool.size}}

    def watch_keeping(self, conditions: Conditions) -> None:
        """Have it said when events cannot be written or partitions not kept, in the process that does it."""
        events, upkeep = self.events, self.upkeep
        conditions.watch("partitions_not_kept", lambda: upkeep.trouble)
        if events is not None:
            conditions.watch("events_not_written", lambda: events.trouble)
            conditions.watch("events_lost", lambda: _events_lost(events, self.event_intake))

    def watch(self, conditions: Conditions) -> None:
        """Have it said when something is wrong here."""
        database, counters, spool = self.database, self.counters, self.intake.spool
        conditions.watch("database_away", lambda: database.detail if database.state is State.AWAY else None)
        conditions.watch("database_refuses_writes", lambda: counters.failing if database.ready else None)
        conditions.watch(
            "records_spooled",
            lambda: f"{spool.entries} reports wait in {spool.folder} for the database" if spool.entries else None,
        )
        conditions.watch(
            "spool_full",
            lambda: (
                f"{spool.folder} holds {spool.size} bytes and takes no more; agents keep their reports"
                if counters.spool_full
                else None
            ),
        )
        shared = self.check_ins.shared
        conditions.watch("shared_ids", lambda: _shared_ids(shared))
        self.watch_keeping(conditions)
        conditions.watch(
            "records_lost",
            lambda: (
                f"{counters.records_lost} acknowledged reports were refused by the database, {spool.damaged} files of "
                f"the spool were damaged; see {spool.folder}"
                if counters.records_lost or spool.damaged
                else None
            ),
        )


def _shared_ids(shared: Mapping[str, None]) -> str | None:
    # A copy, for this is asked in a thread while check-ins add to them.
    found = list(shared)
    if not found:
        return None
    return (
        f"{len(found)} device ids are used by more than one machine, {found[0]} among them; see: "
        "repotool devices list --shared-id"
    )


def _events_lost(events: EventRecorder, intake: Intake) -> str | None:
    lost, spool = events.lost + intake.counters.records_lost, intake.spool
    if not lost and not spool.damaged:
        return None
    return (
        f"{lost} events were refused by the database, {spool.damaged} files of their spool were damaged; see the log, "
        f"and {spool.folder}"
    )


@dataclass(frozen=True, slots=True)
class StoredRecords:
    """Update log records in PostgreSQL."""

    intake: Intake

    async def store(self, device_id: str, records: Sequence[UpdateRecord], now: datetime) -> tuple[Rejected, ...]:
        """Store records, as the port says."""
        refused = await _translated(self.intake.put(Records(device_id, now, tuple(records))))
        return tuple(
            Rejected(record, "refused_by_database", item.message)
            for item in refused
            if isinstance(item.entry, Records)
            for record in item.entry.records
        )


@dataclass(frozen=True, slots=True)
class StoredDevices:
    """Devices in PostgreSQL."""

    database: Database

    async def page(self, wanted: Mapping[str, Any], after: str | None, limit: int) -> list[dict[str, Any]]:
        """Return devices by id, after one."""
        return await _translated(DeviceReader(self.database).page(DeviceFilter(**wanted), after, limit))

    async def get(self, device_id: str, attempts: int) -> dict[str, Any] | None:
        """Return one device with its last attempts."""
        return await _translated(DeviceReader(self.database).get(device_id, attempts))

    async def versions(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Count devices by channel, platform, component and version."""
        return await _translated(DeviceReader(self.database).versions(DeviceFilter(**wanted)))

    async def failures(
        self, since: datetime, component: str | None, version: str | None, limit: int
    ) -> dict[str, list[dict[str, Any]]]:
        """Return failed attempts by signature, and attempts by version."""
        return await _translated(FailureReader(self.database).failures(since, component, version, limit))

    async def events(self, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
        """Return events, newest first."""
        return await _translated(EventReader(self.database).page(wanted, limit))


@dataclass(frozen=True, slots=True)
class NothingRecorded:
    """A server without a database: agents are served, nothing is remembered."""

    def put(
        self,
        device_id: str,
        previous_ids: Sequence[str],
        request: CheckRequest,
        channel: AssignedChannel,
        now: datetime,
    ) -> None:
        """Forget it."""

    async def store(self, _device_id: str, _records: Sequence[UpdateRecord], _now: datetime) -> NoReturn:
        """Say that it cannot be kept."""
        raise RecordsUnavailable(_NO_DATABASE)

    async def page(self, _wanted: Mapping[str, Any], _after: str | None, _limit: int) -> NoReturn:
        """Say that nothing is known."""
        raise RecordsUnavailable(_NO_DATABASE)

    async def get(self, _device_id: str, _attempts: int) -> NoReturn:
        """Say that nothing is known."""
        raise RecordsUnavailable(_NO_DATABASE)

    async def versions(self, _wanted: Mapping[str, Any]) -> NoReturn:
        """Say that nothing is known."""
        raise RecordsUnavailable(_NO_DATABASE)

    async def failures(self, _since: datetime, _component: str | None, _version: str | None, _limit: int) -> NoReturn:
        """Say that nothing is known."""
        raise RecordsUnavailable(_NO_DATABASE)

    async def events(self, _wanted: dict[str, Any], _limit: int) -> NoReturn:
        """Say that nothing is known."""
        raise RecordsUnavailable(_NO_DATABASE)


_NO_DATABASE = "the server runs with --no-database"


async def _translated(answer: Awaitable[_Value]) -> _Value:
    try:
        return await answer
    except TooSlow as error:
        raise RecordsUnavailable(str(error)) from None
    except DatabaseAway as error:
        raise RecordsUnavailable("it is away, see the server's log") from error
