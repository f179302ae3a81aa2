"""What is known of devices, for operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestampLoader, TimestamptzLoader

from repo_server.store.database import Connection, Database

LAST_ATTEMPTS = 20

_FIELDS = """device_id, org_id, site_id, name, status, os_type, os_version, cpu_architecture, channel, reported_channel,
    agent_service_version, agent_ui_version, agent_probe_version, agent_updater_version, agent_health_status,
    agent_health_details, agent_last_health_check, last_agent_checkin, components, attributes, previous_ids"""
_PAGE = f"SELECT {_FIELDS} FROM devices WHERE %(after)s::uuid IS NULL OR device_id > %(after)s::uuid ORDER BY device_id LIMIT %(limit)s"  # noqa: S608, E501 -- constants
_ONE = f"SELECT {_FIELDS} FROM devices WHERE device_id = %(id)s::uuid"  # noqa: S608 -- constants
_ATTEMPTS = """
SELECT record_id, component_name, trigger_source, requested_version, current_version, status, attempt_timestamp,
    completion_timestamp, error_code, error_message, details
FROM agent_update_status_log WHERE device_id = %(id)s::uuid ORDER BY attempt_timestamp DESC LIMIT %(limit)s
"""


class _AnyTimestamptz(TimestamptzLoader):
    """Gives an instant that Python's calendar does not have (year 0, infinity) as PostgreSQL's own text."""

    def load(self, data: Any) -> Any:
        """Return a ``datetime``, or text."""
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


class _AnyTimestamp(TimestampLoader):
    """The same for a column without time zone, as CommandIT's own table may have."""

    def load(self, data: Any) -> Any:
        """Return a ``datetime``, or text."""
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


@dataclass(frozen=True, slots=True)
class DeviceReader:
    """Reads devices; every method raises ``DatabaseAway``."""

    database: Database

    async def page(self, after: str | None, limit: int) -> list[dict[str, Any]]:
        """Return devices by id, after one."""

        async def read(connection: Connection) -> list[dict[str, Any]]:
            async with _rows(connection) as cursor:
                await cursor.execute(_PAGE, {"after": after, "limit": limit})
                return await cursor.fetchall()

        return await self.database.run(read)

    async def get(self, device_id: str) -> dict[str, Any] | None:
        """Return a device with its last attempts, newest first."""

        async def read(connection: Connection) -> dict[str, Any] | None:
            async with _rows(connection) as cursor:
                row = await (await cursor.execute(_ONE, {"id": device_id})).fetchone()
                if row is not None:
                    await cursor.execute(_ATTEMPTS, {"id": device_id, "limit": LAST_ATTEMPTS})
                    row["attempts"] = await cursor.fetchall()
                return row

        return await self.database.run(read)


def _rows(connection: Connection) -> psycopg.AsyncCursor[dict[str, Any]]:
    """Return a cursor that one odd instant, which any device may report, does not stop from reading the rest."""
    cursor = connection.cursor(row_factory=dict_row)
    cursor.adapters.register_loader("timestamptz", _AnyTimestamptz)
    cursor.adapters.register_loader("timestamp", _AnyTimestamp)
    return cursor
