"""One device, one row: a device that changed its id keeps its row and its history (L53, design §7)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import psycopg

from repo_server.store.database import Connection, Database
from repo_server.store.tables import devices_are_ours

AT_ONCE = 50
"""Devices that move in one transaction, each with all of its history."""
SECONDS = 30.0
"""How long that may take."""

_log = logging.getLogger(__name__)

# A row that only says that somebody has reported is no device yet: reports under the new id may come before the check.
_NEW = """
NOT EXISTS (SELECT FROM devices AS known
    WHERE known.device_id = t.device_id AND (known.last_agent_checkin IS NOT NULL OR NOT %(ours)s))
AND NOT EXISTS (SELECT FROM unregistered_devices AS known
    WHERE known.device_id = t.device_id AND known.last_agent_checkin IS NOT NULL)
"""
_MAKE_ROOM = "DELETE FROM {table} WHERE device_id = ANY(%(new)s::uuid[]) AND last_agent_checkin IS NULL"
_TO_DO = f"""
SELECT t.device_id, t.former FROM unnest(%(new)s::uuid[], %(old)s::uuid[]) AS t (device_id, former)
WHERE {_NEW} AND (EXISTS (SELECT FROM devices AS d WHERE d.device_id = t.former)
    OR EXISTS (SELECT FROM unregistered_devices AS d WHERE d.device_id = t.former))
"""  # noqa: S608 -- constants
# The most recently seen of the former ids becomes the new one, unless the new one is known already.
_CHANGE = """
WITH change AS (
    SELECT DISTINCT ON (t.device_id) t.device_id AS new_id, d.device_id AS old_id
    FROM unnest(%(new)s::uuid[], %(old)s::uuid[]) AS t (device_id, former)
    JOIN {table} AS d ON d.device_id = t.former
    WHERE {new}
    ORDER BY t.device_id, d.last_agent_checkin DESC NULLS LAST
), single AS (
    SELECT DISTINCT ON (old_id) new_id, old_id FROM change ORDER BY old_id, new_id
), renamed AS (
    UPDATE {table} AS d
    SET device_id = single.new_id,
        name = CASE WHEN d.name = single.old_id::text THEN single.new_id::text ELSE d.name END,
        previous_ids = array_append(
            array_remove(array_remove(d.previous_ids, single.old_id), single.new_id), single.old_id)
    FROM single WHERE d.device_id = single.old_id
    RETURNING single.new_id, single.old_id
), keys AS (
    UPDATE agent_update_record_ids AS r SET device_id = renamed.new_id
    FROM renamed WHERE r.device_id = renamed.old_id AND NOT EXISTS (
        SELECT FROM agent_update_record_ids AS k WHERE k.device_id = renamed.new_id AND k.record_id = r.record_id)
), told_twice AS (
    DELETE FROM agent_update_status_log AS l USING renamed WHERE l.device_id = renamed.old_id AND EXISTS (
        SELECT FROM agent_update_record_ids AS k WHERE k.device_id = renamed.new_id AND k.record_id = l.record_id)
)
UPDATE agent_update_status_log AS l SET device_id = renamed.new_id
FROM renamed WHERE l.device_id = renamed.old_id AND NOT EXISTS (
    SELECT FROM agent_update_record_ids AS k WHERE k.device_id = renamed.new_id AND k.record_id = l.record_id)
"""


async def rename(database: Database, former: Mapping[str, Sequence[str]]) -> None:
    """Give rows their devices' new ids; ``former``: new id → ids before. Raise ``DatabaseAway``.

    Where other tables hold on to the old id, or the database distributes rows by it, the row cannot get another id:
    then the device gets a second row, which names the first in ``previous_ids``. When a whole fleet changes its ids,
    years of history move: a few devices at a time, for a transaction that takes too long would be begun again for ever.
    """
    said = [(new, old) for new, ids in former.items() for old in ids]
    if not said:
        return
    moving: dict[str, list[str]] = {}
    for new, old in await database.run(_known_of(said)):
        moving.setdefault(str(new), []).append(str(old))
    waiting = list(moving)
    for start in range(0, len(waiting), AT_ONCE):
        part = [(new, old) for new in waiting[start : start + AT_ONCE] for old in moving[new]]
        await database.run(_moved(part), SECONDS)


def _known_of(said: Sequence[tuple[str, str]]) -> Callable[[Connection], Awaitable[list[tuple[Any, ...]]]]:
    """Return what finds those of the changes that there is something to do for; most were done long ago."""

    async def read(connection: Connection) -> list[tuple[Any, ...]]:
        values = {**_values(said), "ours": await devices_are_ours(connection)}
        return await (await connection.execute(_TO_DO, values)).fetchall()

    return read


def _moved(changes: Sequence[tuple[str, str]]) -> Callable[[Connection], Awaitable[None]]:
    async def write(connection: Connection) -> None:
        ours = await devices_are_ours(connection)
        values = {**_values(changes), "ours": ours}
        room = ["devices", "unregistered_devices"] if ours else ["unregistered_devices"]
        for table in ("devices", "unregistered_devices"):
            try:
                async with connection.transaction():
                    # Once, before any row has its new id.
                    while room:
                        await connection.execute(_MAKE_ROOM.format(table=room.pop()), values)
                    await connection.execute(_CHANGE.format(table=table, new=_NEW), values)
            except (psycopg.IntegrityError, psycopg.NotSupportedError) as error:
                _log.warning("rows of devices with new ids stay under the old ones: %s", error)

    return write


def _values(changes: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"new": [new for new, _ in changes], "old": [old for _, old in changes]}
