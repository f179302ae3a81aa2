"""Devices that no longer ask are forgotten, if the operator wants it (``--device-retention-days``; design §7)."""

from __future__ import annotations

from datetime import datetime, timedelta

from repo_server.store.database import Connection
from repo_server.store.looks import confirmed, done
from repo_server.store.tables import devices_are_ours

_PART = 5_000
_MOST = 100_000
"""Devices forgotten in one look, each part with a statement of its own; the rest in the next looks."""
# One that has only reported, and never asked, counts from when it was first heard of.
_GONE = "(last_seen_day < %(day)s OR (last_seen_day IS NULL AND created_at < %(day)s))"
_THERE = f"SELECT EXISTS (SELECT FROM {{table}} WHERE {_GONE})"  # noqa: S608 -- constants
_FIND = f"SELECT device_id::text FROM {{table}} WHERE {_GONE} LIMIT {_PART}"  # noqa: S608 -- constants
_DELETE = f"DELETE FROM {{table}} WHERE device_id = ANY(%(ids)s::uuid[]) AND {_GONE}"  # noqa: S608 -- constants


async def forget_devices(connection: Connection, now: datetime, days: int) -> list[str]:
    """Delete the rows of devices that have not asked for so many days; their log stays as long as all logs.

    CommandIT's own ``devices`` is CommandIT's business. A device that asks again is known again.
    """
    tables = ["unregistered_devices", *(["devices"] if await devices_are_ours(connection) else [])]
    day = now - timedelta(days=days)
    found = [table for table in tables if await _is_there(connection, table, day)]
    names = {f"gone_from_{table}": table for table in found}
    meaning = f"holds devices not seen for {days} days; they are forgotten"
    forgotten = 0
    for name in await confirmed(connection, "gone_from_", list(names), now, meaning):
        deleted = await _delete(connection, names[name], day)
        if deleted < _MOST:
            await done(connection, name)
        forgotten += deleted
    return [f"{forgotten} devices not seen for {days} days"] if forgotten else []


async def _is_there(connection: Connection, table: str, day: datetime) -> bool:
    row = await (await connection.execute(_THERE.format(table=table), {"day": day.date()})).fetchone()
    return row is not None and bool(row[0])


async def _delete(connection: Connection, table: str, day: datetime) -> int:
    deleted = 0
    while deleted < _MOST:
        cursor = await connection.execute(_FIND.format(table=table), {"day": day.date()})
        ids = [row[0] for row in await cursor.fetchall()]
        if not ids:
            break
        cursor = await connection.execute(_DELETE.format(table=table), {"day": day.date(), "ids": ids})
        if not cursor.rowcount:
            break
        deleted += cursor.rowcount
    return deleted
