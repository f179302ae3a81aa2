"""Monthly partitions of the logs: made ahead of time, dropped when they are old (design §7).

Rows of a month that has no partition (a clock that jumped, rows from before there were partitions) lie in the default
partition, and move when their month gets one; those that a clock far ahead has dated are given the present time, for
their month may come in decades. Nothing is dropped or dated anew because a clock says so once (``looks``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TypeAlias

from psycopg import sql

from repo_server.store.database import Connection
from repo_server.store.looks import confirmed, done

AHEAD = 2
"""Months after the current one that have a partition."""
_NAME = re.compile(r".+_y(\d{4})m(\d{2})")
_LOCK_MILLISECONDS = 5000
"""Attaching and dropping ask for strong locks; what waits behind them must not wait long."""

# Two statements, for a distributed database takes none that writes to two tables; the lock keeps them together.
_COPY = "INSERT INTO {new} SELECT * FROM {default} WHERE {key} >= {start} AND {key} < {end}"
_REMOVE = "DELETE FROM {default} WHERE {key} >= {start} AND {key} < {end}"

Month: TypeAlias = date
"""Its first day."""


@dataclass(frozen=True, slots=True)
class PartitionedLog:
    """A log that is partitioned by month."""

    table: str
    key: str
    """The column with the time, in UTC."""
    forget: str | None = None
    """A table of keys that leave with the rows; it has ``received_at``."""

    @property
    def default(self) -> str:
        """Name of the partition of all other months."""
        return f"{self.table}_default"


LOGS = (
    PartitionedLog("agent_update_status_log", "received_at", "agent_update_record_ids"),
    PartitionedLog("event_log", "occurred_at"),
)


def month_of(instant: datetime) -> Month:
    """Return the month of an instant, in UTC."""
    return instant.astimezone(UTC).date().replace(day=1)


def shifted(month: Month, by: int) -> Month:
    """Return the month ``by`` months later, within the calendar."""
    count = min(max(month.year * 12 + month.month - 1 + by, 12), 9999 * 12 + 11)
    return date(count // 12, count % 12 + 1, 1)


def name_of(log: PartitionedLog, month: Month) -> str:
    """Return the name of a month's partition."""
    return f"{log.table}_y{month.year:04}m{month.month:02}"


def month_named(partition: str) -> Month | None:
    """Return whose partition this is, or ``None`` for one that is not ours."""
    found = _NAME.fullmatch(partition)
    return date(int(found[1]), int(found[2]), 1) if found and 1 <= int(found[2]) <= 12 else None  # noqa: PLR2004 -- months


async def prepare(
    connection: Connection, log: PartitionedLog, now: datetime, keep_months: int, ahead: int = AHEAD
) -> list[str]:
    """Make the partitions of this month, the next ones, and of past months whose rows lie in the default partition."""
    await _short_locks(connection)
    have = set(await _partitions(connection, log))
    current = month_of(now)
    wanted = {shifted(current, by) for by in range(ahead + 1)}
    oldest = shifted(current, -keep_months)
    wanted |= {month for month in await _months_in_default(connection, log) if oldest <= month < current}
    made = []
    for month in sorted(wanted):
        name = name_of(log, month)
        if name not in have:
            await _make(connection, log, name, month)
            made.append(name)
    return made


async def expire(connection: Connection, log: PartitionedLog, now: datetime, keep_months: int) -> list[str]:
    """Drop what has been found older than ``keep_months`` often enough; return the names."""
    await _short_locks(connection)
    cutoff = shifted(month_of(now), -keep_months)
    old = [
        name
        for name in await _partitions(connection, log)
        if (month := month_named(name)) is not None and month < cutoff
    ]
    if await _default_is_older(connection, log, cutoff):
        old.append(log.default)
    due = await confirmed(connection, log.table, old, now, "is older than logs are kept; it is dropped")
    if due and log.forget is not None:
        # Millions of them, so before the tables go: that locks the log for everybody until the end.
        await connection.execute(_delete_before(log.forget, "received_at"), (_start(cutoff),))
    for name in due:
        if name == log.default:
            await connection.execute(_delete_before(log.default, log.key), (_start(cutoff),))
        else:
            await connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        await done(connection, name)
    return due


async def redate(connection: Connection, log: PartitionedLog, now: datetime, keep_months: int) -> list[str]:  # noqa: ARG001 -- called like the others
    """Give rows that a clock far ahead has dated the present time, so that they leave when all others do."""
    await _short_locks(connection)
    horizon = _start(shifted(month_of(now), AHEAD + 1))
    name = f"future_{log.table}"
    names = {"log": sql.Identifier(log.table), "default": sql.Identifier(log.default), "key": sql.Identifier(log.key)}
    there = sql.SQL("SELECT EXISTS (SELECT FROM {default} WHERE {key} >= %s)").format(**names)
    row = await (await connection.execute(there, (horizon,))).fetchone()
    found = [name] if row is not None and row[0] else []
    if not await confirmed(connection, name, found, now, "has rows from a clock far ahead; they get the present time"):
        return []
    # Only what lies in the default partition: a month that has one of its own was the present once.
    statement = sql.SQL("UPDATE {log} SET {key} = %s WHERE tableoid = {oid}::regclass AND {key} >= %s").format(
        **names, oid=sql.Literal(log.default)
    )
    changed = (await connection.execute(statement, (now, horizon))).rowcount
    if log.forget is not None:
        forget = sql.SQL("UPDATE {} SET received_at = %s WHERE received_at >= %s").format(sql.Identifier(log.forget))
        await connection.execute(forget, (now, horizon))
    await done(connection, name)
    return [f"{changed} rows of {log.table}"]


async def _make(connection: Connection, log: PartitionedLog, name: str, month: Month) -> None:
    """Make a partition with the rows that belong to it; writers wait for it, readers do not."""
    start, end = _start(month), _start(shifted(month, 1))
    names = {
        "new": sql.Identifier(name),
        "log": sql.Identifier(log.table),
        "default": sql.Identifier(log.default),
        "key": sql.Identifier(log.key),
        "start": sql.Literal(start.isoformat()),
        "end": sql.Literal(end.isoformat()),
    }
    for statement in (
        # Of the log as a whole: a row that was on its way to the default partition would be refused there.
        "LOCK TABLE {log} IN SHARE ROW EXCLUSIVE MODE",
        "CREATE TABLE {new} (LIKE {log} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
        _COPY,
        _REMOVE,
        "ALTER TABLE {log} ATTACH PARTITION {new} FOR VALUES FROM ({start}) TO ({end})",
    ):
        await connection.execute(sql.SQL(statement).format(**names))


async def _partitions(connection: Connection, log: PartitionedLog) -> list[str]:
    cursor = await connection.execute(
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = %s::regclass ORDER BY c.relname",
        (log.table,),
    )
    return [row[0] for row in await cursor.fetchall()]


async def _months_in_default(connection: Connection, log: PartitionedLog) -> Iterable[Month]:
    query = sql.SQL(
        "SELECT DISTINCT date_trunc('month', {key} AT TIME ZONE 'UTC')::date FROM {default}"
        " WHERE {key} BETWEEN '2000-01-01Z' AND '2999-12-31Z'"
    ).format(key=sql.Identifier(log.key), default=sql.Identifier(log.default))
    return [row[0] for row in await (await connection.execute(query)).fetchall()]


async def _default_is_older(connection: Connection, log: PartitionedLog, cutoff: Month) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {default} WHERE {key} < %s)").format(
        key=sql.Identifier(log.key), default=sql.Identifier(log.default)
    )
    row = await (await connection.execute(query, (_start(cutoff),))).fetchone()
    return row is not None and bool(row[0])


def _delete_before(table: str, key: str) -> sql.Composed:
    return sql.SQL("DELETE FROM {} WHERE {} < %s").format(sql.Identifier(table), sql.Identifier(key))


def _start(month: Month) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)


async def _short_locks(connection: Connection) -> None:
    await connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_MILLISECONDS)))
