"""Brings a database to this version's tables, one server at a time."""

from __future__ import annotations

from pathlib import Path

import psycopg

from repo_server.store import DatabaseAway

_LOCK = 0x636F6D6D616E6469
"""Advisory lock: several servers may start on one PostgreSQL at once."""


def migrate(conninfo: str, *, from_start: bool = False, to: str = "head") -> None:
    """Run the migrations that are missing; idempotent. Blocks; raise ``DatabaseAway``.

    ``from_start``: all of them, whatever the database says of itself: somebody took tables away. Each makes only what
    is missing. ``to``: up to this revision only.
    """
    # Half a second of imports, so only where they are needed: in the thread that does the work.
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=sa.pool.NullPool
    )
    try:
        with engine.connect() as lock:
            # Converting a table with years of rows takes as long as it takes.
            lock.exec_driver_sql("SET idle_in_transaction_session_timeout = 0")
            lock.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            with engine.begin() as connection:
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                config.attributes["connection"] = connection
                if from_start:
                    command.stamp(config, "base", purge=True)
                command.upgrade(config, to)
    except (sa.exc.DBAPIError, psycopg.Error, CommandError) as error:
        # Also missing rights and a newer version's tables: agents are served without it until that is mended.
        raise DatabaseAway(f"migrations: {error}") from error
    finally:
        engine.dispose()
