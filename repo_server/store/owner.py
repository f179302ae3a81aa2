"""What the tables' owner does for servers whose role may only read and write rows (``repo-server migrate``)."""

from __future__ import annotations

import asyncio
from datetime import datetime

import psycopg
from psycopg import sql

from repo_server.store import DatabaseAway
from repo_server.store.database import Connection
from repo_server.store.migrate import migrate
from repo_server.store.partitions import LOGS, expire, prepare
from repo_server.store.tables import DISTRIBUTED, LOCAL, REVISION

AHEAD = 14
"""Months that have partitions; run once a year, it is enough."""
_PARTITIONS = """
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY(%s::regclass[]) ORDER BY 1
"""


def keep(conninfo: str, role: str | None, now: datetime, keep_months: int) -> list[str]:
    """Bring the tables to this version, make and drop partitions, give ``role`` its rights; say what was done.

    Idempotent. Blocks; raise ``DatabaseAway``.
    """
    migrate(conninfo)
    try:
        return asyncio.run(_keep(conninfo, role, now, keep_months))
    except psycopg.Error as error:
        raise DatabaseAway(f"{error}") from error


async def _keep(conninfo: str, role: str | None, now: datetime, keep_months: int) -> list[str]:
    done = []
    connection: Connection = await psycopg.AsyncConnection.connect(conninfo, prepare_threshold=None)
    async with connection:
        await connection.execute("SET LOCAL timezone TO 'UTC'; SET LOCAL datestyle TO 'ISO'")
        for log in LOGS:
            done += [f"made {name}" for name in await prepare(connection, log, now, keep_months, AHEAD)]
            done += [f"dropped {name}" for name in await expire(connection, log, now, keep_months)]
        if role is not None:
            done += await _grant(connection, role)
    return done


async def _grant(connection: Connection, role: str) -> list[str]:
    """Let a role read and write rows, and nothing else."""
    cursor = await connection.execute(_PARTITIONS, ([log.table for log in LOGS],))
    partitions = [row[0] for row in await cursor.fetchall()]
    names = {"role": sql.Identifier(role)}
    for table in (*DISTRIBUTED, *LOCAL, *partitions):
        rights = "SELECT" if table == REVISION else "SELECT, INSERT, UPDATE, DELETE"
        statement = sql.SQL(f"GRANT {rights} ON {{table}} TO {{role}}")
        await connection.execute(statement.format(table=sql.Identifier(table), **names))
    await connection.execute(sql.SQL("GRANT USAGE ON SEQUENCE agent_update_log_ids TO {role}").format(**names))
    return [f"{role} may read and write rows of {len(DISTRIBUTED) + len(LOCAL) - 1} tables"]
