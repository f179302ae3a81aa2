"""The one way to PostgreSQL: reaches it or starts it, keeps it migrated, and gives up on it in time.

Everything that asks the database goes through ``Database.run``, which ends within its limit whatever PostgreSQL does,
also when its process is stopped and its sockets stay open: agents are served without it (promise 4).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from repo_server.store import DatabaseAway, TooSlow, session
from repo_server.store.migrate import migrate
from repo_server.store.source import Source
from repo_server.waiting import first_of, pause

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]
_Value = TypeVar("_Value")

RUN_SECONDS = 5.0
DATA_ERRORS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
    # What triggers and views of CommandIT's own tables say.
    psycopg.errors.RaiseException,
    psycopg.errors.TriggeredActionException,
    psycopg.errors.WithCheckOptionViolation,
)
"""What the same statement with the same data will always fail with."""
_NOT_MENDED = (
    psycopg.OperationalError,
    psycopg.NotSupportedError,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.DatatypeMismatch,
    psycopg.errors.CannotCoerce,
    psycopg.errors.SyntaxError,
)
"""What making the tables again does not mend: above all a column of another type in CommandIT's own ``devices``."""
_PING_EVERY = 2.0
_PING_SECONDS = 3.0
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)
POOL_SIZE = 6
QUESTIONS = 3
"""Questions of operators that are asked at once; the other connections are for what agents report."""
_LIMITED = """
SELECT set_config('statement_timeout', %s, true), set_config('max_parallel_workers_per_gather', '0', true)
"""

_log = logging.getLogger(__name__)


class State(enum.StrEnum):
    """How the database is."""

    STARTING = "starting"
    READY = "ready"
    AWAY = "away"


@dataclass(slots=True)
class Database:
    """PostgreSQL as the rest of the server sees it."""

    source: Source
    clock: Callable[[], datetime]
    migrates: bool = True
    """Whether its tables are ours to make; otherwise only where somebody took them away."""
    state: State = State.STARTING
    detail: str = ""
    """Why it is away."""
    since: datetime | None = None
    _pool: AsyncConnectionPool[Connection] | None = None
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _doubt: asyncio.Event = field(default_factory=asyncio.Event)
    _session: dict[str, str] = field(default_factory=dict)
    _pooled: bool = False
    """Whether each transaction may be on another server (PgBouncer)."""
    _broken: str | None = None
    """How it answered, if not as our tables would; then it is migrated again."""
    _questions: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(QUESTIONS))

    def describe(self) -> dict[str, Any]:
        """Return the state for ``/readyz``; the reason is in the log, for it may name hosts."""
        return {"state": self.state, "since": self.since}

    @property
    def ready(self) -> bool:
        """Whether it can be used, as far as is known."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Wait until the database can be used."""
        await self._ready.wait()

    async def run(self, work: Callable[[Connection], Awaitable[_Value]], seconds: float = RUN_SECONDS) -> _Value:
        """Do something in one transaction and return its result, or raise ``DatabaseAway`` within the limit.

        Errors that are the data's own fault (``DATA_ERRORS``) are passed on.
        """
        pool = self._pool
        if pool is None or not self._ready.is_set():
            raise DatabaseAway(f"{self.source} is {self.state}")
        try:
            async with asyncio.timeout(seconds):
                connection = await pool.getconn(timeout=seconds)
        except (PoolTimeout, PoolClosed, TooManyRequests, TimeoutError, psycopg.OperationalError) as error:
            self._doubt.set()
            raise DatabaseAway(f"no connection to {self.source}: {error}") from None
        task = asyncio.ensure_future(self._transaction(pool, connection, work))
        try:
            # Not a plain timeout: cancelling makes psycopg wait for an answer of the server that does not answer.
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if not done:
                _cut(connection)
                self._doubt.set()
            return await task
        except asyncio.CancelledError:
            _cut(connection)
            await asyncio.wait({task})
            raise
        except DATA_ERRORS:
            raise
        except psycopg.Error as error:
            if _of_row_security(error):
                raise psycopg.errors.WithCheckOptionViolation(str(error)) from None
            # Also missing tables and missing rights: that is mended in the database, and nobody's data is wrong.
            self._broken = None if isinstance(error, _NOT_MENDED) else f"{error}"
            self._doubt.set()
            raise DatabaseAway(f"{self.source}: {error}") from None

    async def _transaction(
        self,
        pool: AsyncConnectionPool[Connection],
        connection: Connection,
        work: Callable[[Connection], Awaitable[_Value]],
    ) -> _Value:
        try:
            async with connection.transaction():
                if self._pooled:
                    await session.apply(connection, self._session, local=True)
                return await work(connection)
        finally:
            # To the pool that it is from: there may be another by now.
            await pool.putconn(connection)

    async def ask(self, question: Callable[[Connection], Awaitable[_Value]], seconds: float = RUN_SECONDS) -> _Value:
        """Answer an operator; like ``run``, but in turn, and PostgreSQL itself gives up on it in time.

        Raise ``TooSlow`` when it takes longer, or when nothing else is answered for so long.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._questions.acquire()
        except TimeoutError:
            raise TooSlow(f"other questions have been taking more than {seconds:.0f} s; ask again later") from None
        try:
            return await self.run(_within(question, seconds), seconds + _PING_SECONDS)
        finally:
            self._questions.release()

    async def supervise(self, stop: asyncio.Event) -> None:
        """Keep the database reached, started and migrated until ``stop`` is set."""
        failures = 0
        while not stop.is_set():
            try:
                conninfo = await asyncio.to_thread(self.source.ensure_running)
                if self.migrates or self._broken is not None:
                    await asyncio.to_thread(migrate, conninfo, from_start=self._broken is not None)
                self._broken = None
                await self._open(conninfo)
                self._become(State.READY)
                await self._until_lost(stop)
            except (DatabaseAway, psycopg.Error) as error:
                # A database that is reached and of no use is not asked again and again.
                failures = 1 if self.state is State.READY and self._broken is None else failures + 1
                self._become(State.AWAY, str(error).strip())
                await pause(stop, _BACKOFF[min(failures, len(_BACKOFF)) - 1])
            except Exception as error:  # noqa: BLE001 -- a fault of ours; agents must not be without a server for it
                detail = f"the server failed: {error}"
                if detail != self.detail:
                    _log.exception("the database cannot be used")
                self._become(State.AWAY, detail)
                await pause(stop, _BACKOFF[-1])

    async def close(self) -> None:
        """Close the connections and stop PostgreSQL if it is ours."""
        self._ready.clear()
        if self._pool is not None:
            await self._pool.close(timeout=2.0)
            self._pool = None
        await asyncio.to_thread(self.source.stop)

    async def _open(self, conninfo: str) -> None:
        """Open a pool on a database that was just seen working."""
        self._session = session.settings(conninfo)
        old, self._pool = self._pool, None
        if old is not None:
            await old.close(timeout=0.5)
        pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            conninfo,
            open=False,
            min_size=1,
            max_size=POOL_SIZE,
            timeout=RUN_SECONDS,
            reconnect_timeout=RUN_SECONDS,
            name="repo-server",
            configure=self._configure,
        )
        await pool.open()
        self._pool = pool

    async def _configure(self, connection: Connection) -> None:
        """Prepare a new connection, whatever the server or the role is set to."""
        self._pooled = await session.is_pooled(connection)
        if self._pooled:
            connection.prepare_threshold = None
        else:
            await session.apply(connection, self._session, local=False)
        await connection.commit()

    async def _until_lost(self, stop: asyncio.Event) -> None:
        """Return on ``stop``; raise ``DatabaseAway`` when the database does not answer any more."""
        while not stop.is_set():
            await first_of(stop.wait(), self._doubt.wait(), seconds=_PING_EVERY)
            self._doubt.clear()
            if not self.source.running():
                raise DatabaseAway(f"{self.source} has ended")
            if self._broken is not None:
                raise DatabaseAway(f"{self.source} is not as this version needs it: {self._broken}")
            await self.run(_ping, _PING_SECONDS)

    def _become(self, state: State, detail: str = "") -> None:
        if state is State.READY:
            self._ready.set()
        else:
            self._ready.clear()
        if (state, detail) == (self.state, self.detail):
            return
        if state is State.READY:
            _log.info("database ready: %s", self.source)
        else:
            _log.error("database away, agents are served without it: %s", detail)
        if state is not self.state:
            self.since = self.clock()
        self.state, self.detail = state, detail


def _within(
    question: Callable[[Connection], Awaitable[_Value]], seconds: float
) -> Callable[[Connection], Awaitable[_Value]]:
    """Have PostgreSQL end the question, for a connection that is merely cut leaves it at work there; with one core."""

    async def limited(connection: Connection) -> _Value:
        await connection.execute(_LIMITED, (str(int(seconds * 1000)),))
        try:
            return await question(connection)
        except psycopg.errors.QueryCanceled:
            raise TooSlow(f"it takes more than {seconds:.0f} s; ask for less, or for a shorter time") from None

    return limited


def _of_row_security(error: psycopg.Error) -> bool:
    """Whether a policy refused one row. It has the code of missing rights, and its text may be in any language."""
    refused = isinstance(error, psycopg.errors.InsufficientPrivilege)
    return refused and error.diag.source_function == "ExecWithCheckOptions"


async def _ping(connection: Connection) -> None:
    await connection.execute("SELECT 1")


def _cut(connection: Connection) -> None:
    """Break a connection below the library, so that whoever waits on it is told at once."""
    with contextlib.suppress(OSError, psycopg.Error):
        twin = socket.socket(fileno=os.dup(connection.fileno()))
        try:
            twin.shutdown(socket.SHUT_RDWR)
        finally:
            twin.close()
