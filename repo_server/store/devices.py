"""What is known of devices, for operators: those of ``devices`` and those that only we know, as one list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestampLoader, TimestamptzLoader

from repo_server.store.database import Connection, Database
from repo_server.store.text import clean_json

LAST_ATTEMPTS = 20
MAX_VERSIONS = 10_000
"""Rows of one count: devices say what versions they like, and neither answer nor metrics must grow with that."""
_SLOW_SECONDS = 30.0
"""For questions about the whole fleet."""

_FIELDS = {
    "device_id": "uuid", "org_id": "uuid", "site_id": "text", "name": "text", "status": "text", "os_type": "text",
    "os_version": "text", "cpu_architecture": "text", "channel": "text", "channel_source": "text",
    "reported_channel": "text", "agent_service_version": "text", "agent_ui_version": "text",
    "agent_probe_version": "text", "agent_updater_version": "text", "agent_health_status": "text",
    "agent_health_details": "text", "agent_last_health_check": "timestamptz", "last_agent_checkin": "timestamptz",
    "components": "jsonb", "attributes": "jsonb", "previous_ids": "uuid[]", "shared_id_at": "timestamptz",
}  # fmt: skip
"""Column → type in the answer; CommandIT's own table may have others."""
_EVIDENCE = "seen_machine", "seen_machine_before", "seen_versions", "seen_versions_before"
_SHOWN = ", ".join(f"d.{name}::{kind} AS {name}" for name, kind in _FIELDS.items())

_BEYOND = re.compile(r"(?P<year>\d{4,6})-(?P<day>\d\d-\d\d) (?P<time>\d\d:\d\d:\d\d(?:\.\d+)?)(?:\+00)?(?P<bc> BC)?")
_OUR_ROWS = "NOT EXISTS (SELECT FROM devices AS k WHERE k.device_id = d.device_id)"
_ATTEMPTS = """
SELECT record_id, component_name, trigger_source, requested_version, current_version, status, attempt_timestamp,
    completion_timestamp, error_code, error_message, details, received_at
FROM agent_update_status_log WHERE device_id = %(id)s::uuid ORDER BY attempt_timestamp DESC LIMIT %(limit)s
"""

_CONDITIONS = {
    "channel": "d.channel = %(channel)s",
    "os": "d.os_type = %(os)s",
    "arch": "d.cpu_architecture = %(arch)s",
    "health": "d.agent_health_status = %(health)s",
    "org_id": "d.org_id = %(org_id)s::uuid",
    "site_id": "d.site_id = %(site_id)s",
    # Days are indexed, instants are not: see the migration.
    "seen_before": "d.last_seen_day <= (%(seen_before)s AT TIME ZONE 'UTC')::date"
    " AND d.last_agent_checkin < %(seen_before)s",
    "seen_after": "d.last_seen_day >= (%(seen_after)s AT TIME ZONE 'UTC')::date"
    " AND d.last_agent_checkin >= %(seen_after)s",
    "updater_version": "d.agent_updater_version = %(updater_version)s",
    "components": "d.components @> %(components)s::jsonb",
    "shared_id": "(d.shared_id_at IS NOT NULL) = %(shared_id)s",
}


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Which devices are meant; what is ``None`` does not matter."""

    channel: str | None = None
    os: str | None = None
    arch: str | None = None
    health: str | None = None
    org_id: str | None = None
    """A UUID."""
    site_id: str | None = None
    component: str | None = None
    version: str | None = None
    """Of the component."""
    seen_before: datetime | None = None
    seen_after: datetime | None = None
    shared_id: bool | None = None
    """Whether two machines were seen under the id."""
    registered: bool | None = None
    """Whether the device has a row in ``devices``, or is known to us only."""
    values: Mapping[str, Any] = field(init=False)
    """Name of a condition → what it is compared with."""

    def __post_init__(self) -> None:
        names = "channel", "os", "arch", "health", "org_id", "site_id", "seen_before", "seen_after", "shared_id"
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.component == "updater":
            # It reports itself, not as one of its components.
            values["updater_version"] = self.version
        elif self.component is not None:
            wanted = {"name": self.component} | ({} if self.version is None else {"version": self.version})
            values["components"] = clean_json([wanted])
        object.__setattr__(self, "values", {name: value for name, value in values.items() if value is not None})

    def tables(self, shown: str, tail: str = "") -> str:
        """Return SQL for the devices that are meant, out of both tables; ``tail`` ends each part."""
        conditions = [_CONDITIONS[name] for name in self.values]
        parts = []
        if self.registered is not False:
            parts.append(_select(f"{shown}, true AS registered", "devices", conditions, tail))
        if self.registered is not True:
            parts.append(_select(f"{shown}, false", "unregistered_devices", [*conditions, _OUR_ROWS], tail))
        return " UNION ALL ".join(f"({part})" for part in parts)


class _AnyTimestamptz(TimestamptzLoader):
    """Gives an instant that Python's calendar does not have (year 0, infinity) as text."""

    def load(self, data: Any) -> Any:
        """Return a ``datetime``, or text."""
        try:
            return super().load(data)
        except psycopg.DataError:
            return iso_beyond(bytes(data).decode())


class _AnyTimestamp(TimestampLoader):
    """The same for a column without time zone, as CommandIT's own table may have."""

    def load(self, data: Any) -> Any:
        """Return a ``datetime``, or text."""
        try:
            return super().load(data)
        except psycopg.DataError:
            return iso_beyond(bytes(data).decode())


def iso_beyond(text: str) -> str:
    """Return PostgreSQL's text of an instant in UTC as ISO 8601 writes years before 1 and after 9999: with six digits.

    ``infinity`` stays what it is.
    """
    found = _BEYOND.fullmatch(text)
    if found is None:
        return text
    # There is no year 0 before Christ, but there is one in ISO 8601.
    year = 1 - int(found["year"]) if found["bc"] else int(found["year"])
    return f"{'-' if year < 0 else '+'}{abs(year):06}-{found['day']}T{found['time']}Z"


def page_query(wanted: DeviceFilter, after: str | None, limit: int) -> tuple[str, dict[str, Any]]:
    """Return the statement for a page of devices by id, and its values.

    Each table gives a page by its own index, and the two are merged.
    """
    condition = "" if after is None else "d.device_id > %(after)s::uuid"
    tail = "ORDER BY d.device_id LIMIT %(limit)s"
    rows = wanted.tables(_SHOWN, f"{'AND ' + condition if condition else ''} {tail}")
    query = f"SELECT * FROM ({rows}) AS found ORDER BY device_id LIMIT %(limit)s"  # noqa: S608 -- constants
    return query, {**wanted.values, "after": after, "limit": limit}


@dataclass(frozen=True, slots=True)
class DeviceReader:
    """Reads devices; every method raises ``DatabaseAway``."""

    database: Database

    async def page(self, wanted: DeviceFilter, after: str | None, limit: int) -> list[dict[str, Any]]:
        """Return devices by id, after one."""
        query, values = page_query(wanted, after, limit)
        return await self._all(query, values)

    async def get(self, device_id: str, attempts: int = LAST_ATTEMPTS) -> dict[str, Any] | None:
        """Return a device with its last attempts, newest first, and the evidence if its id seems to be shared."""
        shown = f"{_SHOWN}, {', '.join(f'd.{name}' for name in _EVIDENCE)}"
        query = DeviceFilter().tables(shown, "AND d.device_id = %(id)s::uuid")

        async def read(connection: Connection) -> dict[str, Any] | None:
            async with _rows(connection) as cursor:
                row = await (await cursor.execute(query, {"id": device_id})).fetchone()
                if row is None:
                    return None
                machine, machine_before, versions, versions_before = (row.pop(name) for name in _EVIDENCE)
                shared = row["shared_id_at"] is not None
                row["seen_machines"] = [machine, machine_before] if shared else None
                row["seen_versions"] = [versions, versions_before] if shared else None
                await cursor.execute(_ATTEMPTS, {"id": device_id, "limit": attempts})
                row["attempts"] = await cursor.fetchall()
                return row

        return await self.database.ask(read)

    async def versions(self, wanted: DeviceFilter, limit: int = MAX_VERSIONS) -> list[dict[str, Any]]:
        """Count devices by channel, platform, component and version; of very many, those that most devices have."""
        rows = wanted.tables("d.channel::text, d.os_type::text, d.cpu_architecture::text, d.components,"
                             " d.agent_updater_version::text, d.last_agent_checkin::timestamptz")  # fmt: skip
        query = f"""
        SELECT * FROM (
            SELECT found.channel, found.os_type, found.cpu_architecture, c.name AS component, c.version,
                count(*) AS devices, max(found.last_agent_checkin) AS last_agent_checkin
            FROM ({rows}) AS found CROSS JOIN LATERAL (
                SELECT name, version FROM jsonb_to_recordset(found.components) AS t (name text, version text)
                WHERE name <> 'updater' AND version <> ''
                UNION ALL SELECT 'updater', found.agent_updater_version WHERE found.agent_updater_version <> ''
            ) AS c GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC, 4, 1, 2, 3, 5 LIMIT %(limit)s
        ) AS counted ORDER BY 4, 6 DESC, 1, 2, 3, 5
        """  # noqa: S608 -- constants
        return await self._all(query, {**wanted.values, "limit": limit}, _SLOW_SECONDS)

    async def _all(self, query: str, values: dict[str, Any], seconds: float = 5.0) -> list[dict[str, Any]]:
        async def read(connection: Connection) -> list[dict[str, Any]]:
            async with _rows(connection) as cursor:
                await cursor.execute(query, values)
                return await cursor.fetchall()

        return await self.database.ask(read, seconds)


def _select(shown: str, table: str, conditions: list[str], tail: str) -> str:
    return f"SELECT {shown} FROM {table} AS d WHERE {' AND '.join(conditions) or 'true'} {tail}"  # noqa: S608 -- constants


def _rows(connection: Connection) -> psycopg.AsyncCursor[dict[str, Any]]:
    """Return a cursor that one odd instant, which any device may report, does not stop from reading the rest."""
    cursor = connection.cursor(row_factory=dict_row)
    cursor.adapters.register_loader("timestamptz", _AnyTimestamptz)
    cursor.adapters.register_loader("timestamp", _AnyTimestamp)
    return cursor
