"""What holds within a connection: UTC, and limits without which a forgotten lock would stop everything.

Set once where the connection is one with a server of its own. A pooler (PgBouncer in transaction mode, and most that
managed databases have) gives every transaction another server: then they are set in each transaction, and statements
are not prepared, for the next server would not know them.
"""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

_FORMS = {"timezone": "UTC", "datestyle": "ISO"}
"""In which instants come; a database may be set to others, which cannot be read."""
_LIMITS = {"lock_timeout": "30s", "statement_timeout": "60s", "idle_in_transaction_session_timeout": "60s"}


def settings(conninfo: str) -> dict[str, str]:
    """Return what is set: our limits leave alone what ``options`` of a connection string set."""
    given = conninfo_to_dict(conninfo).get("options")
    return _FORMS | ({} if given else _LIMITS)


async def is_pooled(connection: psycopg.AsyncConnection[TupleRow]) -> bool:
    """Whether something stands between us and the server: then the process that greeted us is another."""
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    return row is None or row[0] != connection.info.backend_pid


async def apply(connection: psycopg.AsyncConnection[TupleRow], values: dict[str, str], *, local: bool) -> None:
    """Set values for the connection, or for the transaction that is open."""
    calls = ", ".join("set_config(%s, %s, %s)" for _ in values)
    arguments = [argument for name, value in values.items() for argument in (name, value, local)]
    await connection.execute(f"SELECT {calls}", arguments)
