"""Brings a database to this version's tables, one server at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from repo_server.store import DatabaseAway
from repo_server.store.tables import DISTRIBUTED, LOCAL, REVISION

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

_LOCK = 0x636F6D6D616E6469
"""Advisory lock: several servers may start on one PostgreSQL at once."""
# Converting a table with years of rows takes as long as it takes.
_LIMITS = """
SELECT set_config('timezone', 'UTC', true), set_config('lock_timeout', '30s', true),
    set_config('datestyle', 'ISO', true), set_config('statement_timeout', '0', true),
    set_config('idle_in_transaction_session_timeout', '0', true)
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
            _refuse_newer(connection, config)
            if from_start:
                command.stamp(config, "base", purge=True)
            command.upgrade(config, to)
    except (sa.exc.DBAPIError, psycopg.Error, CommandError) as error:
        # Also missing rights: agents are served without it until that is mended.
        # SQLAlchemy adds the whole statement and a link to what PostgreSQL says.
        why = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        refused = isinstance(why, psycopg.errors.InsufficientPrivilege)
        if refused and from_start:
            # Not ours to make again; whether they are there is looked at all the same, for their owner may have.
            migrate(conninfo, to=to)
            return
        raise DatabaseAway(f"migrations: {' '.join(str(why).split())}{_advice(why)}") from error
    finally:
        engine.dispose()


def _refuse_newer(connection: Connection, config: Config) -> None:
    """Leave tables alone that a newer version has made: it knows what has become of them."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": REVISION})
    newer = sorted(set(context.get_current_heads()) - known)
    if newer:
        raise DatabaseAway(
            f"the database was taken to revision {', '.join(newer)} by a newer version of this program, which knows "
            f"{max(known)}; run that version, or restore a backup to go back"
        )


def _advice(why: BaseException | None) -> str:
    """Return what to do about what PostgreSQL says, if that can be told."""
    if isinstance(why, psycopg.errors.InsufficientPrivilege):
        return "; the tables' owner makes them: repo-server migrate --database-url URL"
    if isinstance(why, psycopg.errors.InvalidSchemaName):
        return "; the role's search_path names no schema that is there"
    if isinstance(why, psycopg.ProgrammingError):
        # Only columns that are missing are added to a table that is there.
        names = ", ".join((*DISTRIBUTED, *LOCAL))
        return (
            f"; a table of another form seems to have one of the names {names}: rename it, or give this server a "
            "database or a schema (search_path) of its own"
        )
    return ""
