"""Whose ``devices`` this is: our own, or the wider one of CommandIT, whose rows only CommandIT can make (design §7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repo_server.store.database import Connection

DISTRIBUTED = ("devices", "unregistered_devices", "agent_update_record_ids", "agent_update_status_log")
"""Tables of devices: each has ``device_id`` in its keys, so that a distributed database can spread them by it."""
REVISION = "updater_schema_revision"
"""Which steps the tables have been taken through; not Alembic's usual name, which CommandIT may use for its own."""
LOCAL = ("event_log", "event_states", "expired_partitions", REVISION)
"""All others; nothing joins them with those."""

_OURS = """
SELECT NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'devices'::regclass AND attnum > 0 AND NOT attisdropped
    AND attnotnull AND NOT atthasdef AND attidentity = '' AND attname <> 'device_id')
"""


async def devices_are_ours(connection: Connection) -> bool:
    """Whether rows can be made in ``devices``: nothing but the id is asked for.

    In CommandIT's own table a row needs an organisation, serial number and more that an agent does not know, so there
    the rows that CommandIT made are updated, and all other devices are kept in ``unregistered_devices``.
    """
    row = await (await connection.execute(_OURS)).fetchone()
    return row is not None and bool(row[0])
