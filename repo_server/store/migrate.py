"""Brings a database to this version's tables, one server at a time."""

from __future__ import annotations

from pathlib import Path

import psycopg

from repo_server.store import DatabaseAway

_LOCK = 0x636F6D6D616E6469
"""Advisory lock: several servers may start on one PostgreSQL at once."""
# Converting a table with years of rows takes as long as it takes.
_LIMITS = """
SELECT set_config('timezone', 'UTC', true), set_config('lock_timeout', '30s', true),
    set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true)
"""


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
        # Through a pooler a statement may come to another server than the one that prepared it.
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(conninfo, prepare_threshold=None),
        poolclass=sa.pool.NullPool,
    )
    try:
        # One transaction with its lock and limits, for a pooler knows no sessions.
        with engine.begin() as connection:
            connection.exec_driver_sql(_LIMITS)
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config.attributes["connection"] = connection
            if from_start:
                command.stamp(config, "base", purge=True)
            command.upgrade(config, to)
    except (sa.exc.DBAPIError, psycopg.Error, CommandError) as error:
        # Also missing rights and a newer version's tables: agents are served without it until that is mended.
        refused = isinstance(error, sa.exc.DBAPIError) and isinstance(error.orig, psycopg.errors.InsufficientPrivilege)
        if refused and from_start:
            # Not ours to make again; whether they are there is looked at all the same, for their owner may have.
            migrate(conninfo, to=to)
            return
        advice = "; the tables' owner makes them: repo-server migrate --database-url URL" if refused else ""
        # SQLAlchemy adds the whole statement and a link to what PostgreSQL says.
        why = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise DatabaseAway(f"migrations: {' '.join(str(why).split())}{advice}") from error
    finally:
        engine.dispose()
