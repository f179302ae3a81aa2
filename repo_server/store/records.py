"""Update log records as SQL: each once, whatever is sent again (FR-LOG-001, design §7)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import psycopg

from repo_server.core.wire import UpdateRecord
from repo_server.store.database import DATA_ERRORS, Connection
from repo_server.store.sightings import KNOWN
from repo_server.store.tables import devices_are_ours
from repo_server.store.text import clean, clean_json

BESIDE = "unregistered_devices"
"""Where devices are kept that ``devices`` does not take."""
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
    "error_pattern": "text",
    "details": "jsonb",
    "received_at": "timestamptz",
}
_ROWS = f"""
unnest({", ".join(f"%({name})s::{kind}[]" for name, kind in _COLUMNS.items())})
    WITH ORDINALITY AS t ({", ".join(_COLUMNS)}, place)
"""
# The key's table decides what is new; a unique index cannot span the log's partitions. Two statements, for a
# distributed database takes none that writes to two tables.
_FRESH = """
INSERT INTO agent_update_record_ids (device_id, record_id, received_at)
SELECT * FROM unnest(%(device_id)s::uuid[], %(record_id)s::uuid[], %(received_at)s::timestamptz[]) AS t (d, r, at)
ORDER BY d, r ON CONFLICT DO NOTHING RETURNING device_id, record_id
"""
_INSERT = f"""
INSERT INTO agent_update_status_log ({", ".join(_COLUMNS)})
SELECT {", ".join(_COLUMNS)} FROM {_ROWS} ORDER BY place
"""  # noqa: S608 -- built from the constants above
# Not by a subquery: a distributed database does not take one for a row that is no table's.
_KNOW_DEVICES = """
INSERT INTO {table} (device_id, name, device_type)
SELECT t.id, t.id::text, 'endpoint' FROM unnest(%(ids)s::uuid[]) AS t (id)
WHERE NOT t.id = ANY(%(known)s::uuid[]) ORDER BY t.id
ON CONFLICT (device_id) DO NOTHING
"""
# A report that waited in a spool, or came late, may bear an id that its device has changed since.
_CHANGED = """
SELECT DISTINCT ON (t.id) t.id, d.device_id FROM unnest(%(ids)s::uuid[]) AS t (id) JOIN (
    SELECT device_id, previous_ids, last_agent_checkin FROM devices WHERE previous_ids && %(ids)s::uuid[]
    UNION ALL
    SELECT device_id, previous_ids, last_agent_checkin FROM unregistered_devices WHERE previous_ids && %(ids)s::uuid[]
) AS d ON t.id = ANY(d.previous_ids)
WHERE NOT EXISTS (SELECT FROM unregistered_devices AS u WHERE u.device_id = t.id AND u.last_agent_checkin IS NOT NULL)
ORDER BY t.id, d.last_agent_checkin DESC NULLS LAST, d.device_id
"""

_PATTERN_LENGTH = 200
_LOOKED_AT = 1000
"""Characters of a message that its pattern is made of: thousands of them may come in one request."""
_VARIABLE = re.compile(
    r"(?P<url>\b[a-z][a-z0-9+.-]{0,15}://\S+)"
    r"|(?P<time>\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)"
    r"|(?P<path>(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\",;:()]+)"
    r"|(?P<id>\b[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\b|\b[0-9A-Fa-f]{16,}\b)"
    r"|(?P<n>\b0x[0-9A-Fa-f]+\b|(?<!\w)v?\d+(?:[.:]\d+)*)"
)


def pattern_of(message: str) -> str:
    """Return a message without what differs from device to device: times, numbers, ids, paths, URLs."""
    return _VARIABLE.sub(lambda found: f"<{found.lastgroup}>", " ".join(message.split())[:_LOOKED_AT])[:_PATTERN_LENGTH]


def write_records(rows: Sequence[tuple[str, UpdateRecord, datetime]]) -> Callable[[Connection], Awaitable[None]]:
    """Return what writes records (device, record, when it was received); raise ``RecursionError`` for absurd details.

    A device that is not known yet gets a row, so that it is seen.
    """
    said = [_row(*row) for row in rows]

    async def write(connection: Connection) -> None:
        if not said:
            return
        devices = sorted({row[1] for row in said})
        home = "devices" if await devices_are_ours(connection) else BESIDE
        known = await (await connection.execute(KNOWN, {"ids": devices})).fetchall()
        values = {"ids": devices, "known": [row[0] for row in known]}
        changed = {}
        if len(known) < len(devices):
            changed = await _changed(connection, set(devices).difference(str(row[0]) for row in known))
            values["ids"] = [device_id for device_id in devices if device_id not in changed]
            await _know(connection, home, values)
        # A record that stands there twice is written once, as it came first.
        named = [(row[0], changed.get(row[1], row[1]), *row[2:]) for row in reversed(said)]
        table = {(row[1], row[0]): row for row in named}
        cursor = await connection.execute(_FRESH, _columns(table.values()))
        fresh = {(str(device_id), record_id) for device_id, record_id in await cursor.fetchall()}
        new = [row for key, row in reversed(table.items()) if key in fresh]
        if new:
            await connection.execute(_INSERT, _columns(new))

    return write


async def _changed(connection: Connection, ids: Iterable[str]) -> dict[str, str]:
    """Return those of the ids that no row has any more, and which their devices have now."""
    cursor = await connection.execute(_CHANGED, {"ids": sorted(ids)})
    return {str(former): str(device_id) for former, device_id in await cursor.fetchall()}


async def _know(connection: Connection, home: str, values: dict[str, Any]) -> None:
    """Make rows for devices; one that ``devices`` refuses is kept beside it, for its records are taken all the same."""
    try:
        async with connection.transaction():
            await connection.execute(_KNOW_DEVICES.format(table=home), values)
    except (*DATA_ERRORS, psycopg.errors.InsufficientPrivilege):
        # Which of several it is turns out when each is written by itself.
        if home == BESIDE or len(values["ids"]) > 1:
            raise
        await connection.execute(_KNOW_DEVICES.format(table=BESIDE), values)


def _columns(rows: Iterable[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))


def _row(device_id: str, record: UpdateRecord, received_at: datetime) -> tuple[Any, ...]:
    message = clean(record.error_message, 4096)
    return (
        record.record_id,
        device_id,
        clean(record.component_name, 50),
        clean(record.trigger_source, 50),
        clean(record.requested_version, 64),
        clean(record.current_version, 64),
        record.status.value,
        record.attempt_timestamp,
        record.completion_timestamp,
        None if record.error_code is None else clean(str(record.error_code), 64),
        message,
        None if message is None else pattern_of(message),
        None if record.details is None else clean_json(record.details),
        received_at,
    )
