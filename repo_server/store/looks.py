"""Nothing is thrown away because a clock says so once: it has to be found due in many looks, an hour apart (design §7).

A look that does not find it due any more forgets the others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from repo_server.store.database import Connection

LOOKS = 24
LOOK_SECONDS = 3600.0

_FORGET = """
DELETE FROM expired_partitions WHERE left(partition_name, length(%(scope)s)) = %(scope)s
    AND NOT partition_name = ANY(%(found)s)
"""
_COUNT = """
INSERT INTO expired_partitions AS e (partition_name, looks, looked_at) VALUES (%(name)s, 1, %(now)s)
ON CONFLICT (partition_name) DO UPDATE SET looked_at = excluded.looked_at, looks = e.looks +
    -- Several servers look; one look an hour counts. A clock that was put back counts again.
    CASE WHEN excluded.looked_at - e.looked_at BETWEEN interval '0' AND %(pause)s THEN 0 ELSE 1 END
RETURNING looks
"""
_DONE = "DELETE FROM expired_partitions WHERE partition_name = %s"

_log = logging.getLogger(__name__)


async def confirmed(connection: Connection, scope: str, found: Sequence[str], now: datetime, meaning: str) -> list[str]:
    """Note what this look finds due, of all whose names begin with ``scope``; return what was found so often enough.

    ``meaning`` says in the log what is about to happen to it.
    """
    await connection.execute(_FORGET, {"scope": scope, "found": list(found)})
    due = []
    for name in found:
        values = {"name": name, "now": now, "pause": f"{0.9 * LOOK_SECONDS} seconds"}
        row = await (await connection.execute(_COUNT, values)).fetchone()
        looks = 0 if row is None else int(row[0])
        if looks == 1:
            _log.info("%s %s in a day if the clock still says so then", name, meaning)
        if looks > LOOKS:
            due.append(name)
    return due


async def done(connection: Connection, name: str) -> None:
    """Begin to count anew: what was due has been seen to."""
    await connection.execute(_DONE, (name,))
