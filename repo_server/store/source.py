"""Where PostgreSQL is: a port with two implementations, a given server and the embedded one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from repo_server.store import UrlInvalid

CONNECT_SECONDS = 5


class Source(Protocol):
    """A PostgreSQL server. The methods block; they are called in worker threads, one at a time."""

    def ensure_running(self) -> str:
        """Start it if that is ours to do, and return how to connect; idempotent. Raise ``DatabaseAway``."""

    def running(self) -> bool:
        """Whether it is worth trying to connect; never blocks."""

    def stop(self) -> None:
        """Stop it if it was started here; idempotent."""

    def __str__(self) -> str:
        """Name it for people, without a password."""


@dataclass(frozen=True, slots=True)
class GivenServer:
    """A PostgreSQL that somebody else runs."""

    conninfo: str

    @classmethod
    def parse(cls, url: str) -> GivenServer:
        """Read ``--database-url``; raise ``UrlInvalid`` (the message has no password)."""
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise UrlInvalid(
                f"--database-url is not a connection string like postgresql://user@host/database: {error}"
            ) from None
        return cls(make_conninfo(**with_defaults(given)))

    def ensure_running(self) -> str:
        """Return how to connect."""
        return self.conninfo

    def running(self) -> bool:
        """Say yes: only trying tells."""
        return True

    def stop(self) -> None:
        """Leave it alone."""

    def __str__(self) -> str:
        given = conninfo_to_dict(self.conninfo)
        return f"PostgreSQL at {given.get('host', 'the default socket')}, database {given.get('dbname', 'default')}"


def with_defaults(given: Mapping[str, str | int | None]) -> dict[str, Any]:
    """Add a time limit to connection parameters, unless it is set: a dead server would hang its clients.

    Always UTF-8: what is sent is, and a database in SQL_ASCII would be read as bytes. No ``options``, which poolers
    refuse; limits are set once connected (``session``).
    """
    defaults = {"connect_timeout": CONNECT_SECONDS, "application_name": "repo-server"}
    return defaults | dict(given) | {"client_encoding": "UTF8"}
