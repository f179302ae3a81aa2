"""Check-ins: the newest of each device, written in batches; lost rather than waited for (design §7, promise 4)."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from repo_server.core.wire import CheckRequest, ComponentState
from repo_server.store import DatabaseAway
from repo_server.store.database import DATA_ERRORS, Connection, Database
from repo_server.store.text import clean_json

BATCH = 1000
FLUSH_SECONDS = 0.5
MAX_WAITING = 100_000
"""Devices kept in memory while the database is away; beyond that the longest-waiting one is dropped."""

_log = logging.getLogger(__name__)

_COLUMNS = {
    "device_id": ("uuid", "device_id"),
    "org_id": ("uuid", "org_id"),
    "site_id": ("text", "left(site_id, 128)"),
    "os_type": ("text", "left(os_type, 50)"),
    "cpu_architecture": ("text", "left(cpu_architecture, 50)"),
    "reported_channel": ("text", "left(reported_channel, 20)"),
    "agent_service_version": ("text", "left(agent_service_version, 50)"),
    "agent_ui_version": ("text", "left(agent_ui_version, 50)"),
    "agent_probe_version": ("text", "left(agent_probe_version, 50)"),
    "agent_updater_version": ("text", "left(agent_updater_version, 50)"),
    "components": ("jsonb", "components"),
    "attributes": ("jsonb", "attributes"),
    "agent_health_status": ("text", "left(agent_health_status, 20)"),
    "agent_health_details": ("text", "agent_health_details"),
    "agent_last_health_check": ("timestamptz", "agent_last_health_check"),
    "last_agent_checkin": ("timestamptz", "last_agent_checkin"),
}
"""Column → its type on the way there, and what is written."""
_KEPT = {"org_id", "site_id", "attributes", "agent_health_status", "agent_health_details", "agent_last_health_check"}
"""What a check-in need not say; then the last known value stays."""

# One JSON document instead of an array per column: making it costs the event loop a quarter as much (design §9).
_UPSERT = f"""
INSERT INTO devices AS d (name, device_type, status, {", ".join(_COLUMNS)})
SELECT device_id::text, 'endpoint', 'active', {", ".join(value for _, value in _COLUMNS.values())}
FROM json_to_recordset(%(batch)s::json) AS t ({", ".join(f"{name} {kind}" for name, (kind, _) in _COLUMNS.items())})
ORDER BY t.device_id
ON CONFLICT (device_id) DO UPDATE SET updated_at = excluded.last_agent_checkin, {
    ", ".join(
        f"{name} = coalesce(excluded.{name}, d.{name})" if name in _KEPT else f"{name} = excluded.{name}"
        for name in _COLUMNS
        if name != "device_id"
    )
}
"""  # noqa: S608 -- built from the constants above

# The most recently seen of the former ids becomes the new one, unless the new one is known already: a device that
# changed its id stays one device, with its history (L53).
_RENAME = """
WITH change AS (
    SELECT DISTINCT ON (t.device_id) t.device_id AS new_id, d.device_id AS old_id
    FROM unnest(%(new)s::uuid[], %(old)s::uuid[]) AS t (device_id, former)
    JOIN devices AS d ON d.device_id = t.former
    WHERE NOT EXISTS (SELECT FROM devices AS known WHERE known.device_id = t.device_id)
    ORDER BY t.device_id, d.last_agent_checkin DESC NULLS LAST
), single AS (
    SELECT DISTINCT ON (old_id) new_id, old_id FROM change ORDER BY old_id, new_id
)
UPDATE devices AS d
SET device_id = single.new_id,
    previous_ids = array_append(coalesce(d.previous_ids, '{}'), single.old_id)
FROM single WHERE d.device_id = single.old_id
"""


@dataclass(frozen=True, slots=True)
class _CheckIn:
    previous_ids: tuple[str, ...]
    request: CheckRequest
    at: datetime


@dataclass(slots=True)
class CheckInWriter:
    """Takes check-ins at once and writes them later, each device at most once per batch."""

    database: Database
    dropped: int = 0
    """Check-ins that were lost since the start: the database was away too long, or refused them."""
    written: int = 0
    _waiting: dict[str, _CheckIn] = field(default_factory=dict)
    _full: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, device_id: str, previous_ids: Sequence[str], request: CheckRequest, now: datetime) -> None:
        """Take a check-in; never blocks, never fails."""
        waiting = self._waiting
        before = waiting.get(device_id)
        if before is not None and before.previous_ids and not previous_ids:
            previous_ids = before.previous_ids
        waiting[device_id] = _CheckIn(tuple(previous_ids), request, now)
        if len(waiting) > MAX_WAITING:
            del waiting[next(iter(waiting))]
            self.dropped += 1
        if len(waiting) >= BATCH:
            self._full.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Write batches until ``stop`` is set, then what is left, if the database is there."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                await _first_of(stopped, self._full.wait(), FLUSH_SECONDS)
                ready = asyncio.ensure_future(self.database.wait_ready())
                await asyncio.wait({stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
                ready.cancel()
                await self.flush()
        finally:
            stopped.cancel()

    async def flush(self) -> None:
        """Write everything that waits; stop at the first batch that the database does not take."""
        while self._waiting:
            batch = self._take()
            try:
                await self._write(batch)
            except DatabaseAway:
                self._give_back(batch)
                return
            except Exception:  # noqa: BLE001 -- see below
                # A fault of ours; agents must not be without a server for it.
                _log.exception("%d check-ins could not be written and are dropped", len(batch))
                self.dropped += len(batch)
        self._full.clear()

    def _take(self) -> dict[str, _CheckIn]:
        if len(self._waiting) <= BATCH:
            batch, self._waiting = self._waiting, {}
            return batch
        ids = [device_id for device_id, _ in zip(self._waiting, range(BATCH), strict=False)]
        return {device_id: self._waiting.pop(device_id) for device_id in ids}

    def _give_back(self, batch: dict[str, _CheckIn]) -> None:
        """Put a batch back in front; what came in meanwhile is newer and stays."""
        merged = batch | self._waiting
        self.dropped += max(0, len(merged) - MAX_WAITING)
        for device_id in list(merged)[: max(0, len(merged) - MAX_WAITING)]:
            del merged[device_id]
        self._waiting = merged

    async def _write(self, batch: dict[str, _CheckIn]) -> None:
        try:
            await self.database.run(_statements(batch))
            self.written += len(batch)
        except (*DATA_ERRORS, RecursionError) as error:
            if len(batch) == 1:
                self.dropped += 1
                _log.error("check-in of %s refused by the database: %s", next(iter(batch)), error)
                return
            # One row that the database refuses must not take the others with it: halve until it stands alone.
            ids = list(batch)
            for part in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                await self._write({device_id: batch[device_id] for device_id in part})


class _Row(msgspec.Struct, omit_defaults=True):
    """One device in the document; the names are those of the columns."""

    device_id: str
    org_id: str | None
    site_id: str | None
    os_type: str
    cpu_architecture: str
    reported_channel: str
    agent_service_version: str | None
    agent_ui_version: str | None
    agent_probe_version: str | None
    agent_updater_version: str
    components: tuple[ComponentState, ...]
    attributes: dict[str, Any] | None
    agent_health_status: str | None
    agent_health_details: str | None
    agent_last_health_check: datetime | None
    last_agent_checkin: datetime


def _statements(batch: dict[str, _CheckIn]) -> Callable[[Connection], Any]:
    former = [(device_id, old) for device_id, item in batch.items() for old in item.previous_ids]
    document = clean_json([_row(device_id, item) for device_id, item in batch.items()])

    async def write(connection: Connection) -> None:
        # A check-in comes again; it is not worth a wait for the disk.
        await connection.execute("SET LOCAL synchronous_commit = off")
        if former:
            await connection.execute(_RENAME, {"new": [new for new, _ in former], "old": [old for _, old in former]})
        await connection.execute(_UPSERT, {"batch": document})

    return write


def _row(device_id: str, item: _CheckIn) -> _Row:
    request = item.request
    versions = {component.name: component.version for component in request.components}
    org_id, attributes = _organisation(request)
    health = request.health
    return _Row(
        device_id,
        org_id,
        request.site_id,
        request.os,
        request.arch,
        request.release_channel,
        # "" is a component that the device wants and has not: no version.
        versions.get("service") or None,
        versions.get("ui") or None,
        versions.get("probe") or None,
        request.updater_version,
        request.components,
        attributes,
        None if health is None else health.status,
        None if health is None else health.details,
        None if health is None else item.at,
        item.at,
    )


def _organisation(request: CheckRequest) -> tuple[str | None, dict[str, Any] | None]:
    """Return ``org_id``, a UUID as in the source schema, and the attributes, where one of another form is kept."""
    if not request.org_id:
        return None, request.attributes
    try:
        return str(uuid.UUID(request.org_id.strip())), request.attributes
    except ValueError:
        return None, {**(request.attributes or {}), "org_id": request.org_id}


async def _first_of(stopped: asyncio.Future[Any], other: Any, seconds: float) -> None:
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait({stopped, waiting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
