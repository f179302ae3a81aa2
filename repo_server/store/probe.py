"""One look at a PostgreSQL that somebody else runs, before a server needs it."""

from __future__ import annotations

import psycopg

from repo_server.store import DatabaseAway
from repo_server.store.source import GivenServer

_ROOM = """
SELECT least(
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
    (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)
)
"""


def connections_of(server: GivenServer) -> int:
    """Connect once, and return how many connections there may be; raise ``DatabaseAway``."""
    try:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            row = connection.execute(_ROOM).fetchone()
    except psycopg.Error as error:
        raise DatabaseAway(f"{server}: {' '.join(str(error).split())}") from None
    return int(row[0]) if row is not None else 0
