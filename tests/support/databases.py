"""A real PostgreSQL for tests of the store: one cluster per session, a database of its own for each test."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from repo_server.store.database import Database
from repo_server.store.embedded import EmbeddedPostgres
from repo_server.store.source import GivenServer

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class TestDatabase:
    """An empty database, reached over a socket that other processes can reach too."""

    __test__ = False
    url: str

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement, or several without values."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def run(self, work: Callable[[Database], Awaitable[_Value]]) -> _Value:
        """Do something with the database as the server has it: migrated and supervised."""

        async def supervised() -> _Value:
            database, stop = Database(GivenServer.parse(self.url), lambda: datetime.now(UTC)), asyncio.Event()
            task = asyncio.create_task(database.supervise(stop))
            try:
                async with asyncio.timeout(60):
                    await database.wait_ready()
                return await work(database)
            finally:
                stop.set()
                await task
                await database.close()

        return asyncio.run(supervised())


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL."""

    source: EmbeddedPostgres

    def new(self, options: str = "") -> TestDatabase:
        """Make a database, with options of CREATE DATABASE."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} {options}")
        return TestDatabase(self._url(name))

    def _url(self, name: str) -> str:
        return f"host={self.source.folder} user=postgres dbname={name}"


@contextlib.contextmanager
def cluster(disk: Path | None = None) -> Iterator[Cluster]:
    """Run a PostgreSQL, on a disk if that matters, reached by a short name: a socket's path has at most 107 bytes."""
    state = Path(tempfile.mkdtemp(prefix="pg-"))
    if disk is not None:
        state.rmdir()
        state.symlink_to(disk)
    source = EmbeddedPostgres(state)
    try:
        source.ensure_running()
        yield Cluster(source)
    finally:
        source.stop()
        if disk is not None:
            state.unlink()
        shutil.rmtree(state, ignore_errors=True)
