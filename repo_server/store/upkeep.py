"""The database's housekeeping: partitions ahead of time, old logs and devices out (design §7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import psycopg

from repo_server.store import DatabaseAway
from repo_server.store.database import Connection, Database
from repo_server.store.looks import LOOK_SECONDS
from repo_server.store.partitions import LOGS, PartitionedLog, expire, prepare, redate
from repo_server.store.retention import forget_devices
from repo_server.waiting import first_of, pause

_WORK_SECONDS = 60.0
_AGAIN_SECONDS = 60.0
_LOCK = 0x75706B656570
"""Advisory lock: of several servers on one PostgreSQL, one at a time keeps house."""

_ADVICE = (
    "partitions of {log.table} are neither made nor dropped ({error}); its rows go to {log.default} where a month has "
    "none. Have its owner run this now and then: repo-server migrate --database-url URL"
)

_LOG_WORK = (
    (prepare, "new partitions"),
    (redate, "given the present time, a clock far ahead had dated them"),
    (expire, "dropped, older than logs are kept"),
)

_Work: TypeAlias = Callable[[Connection], Awaitable[list[str]]]
_LogWork: TypeAlias = Callable[[Connection, PartitionedLog, datetime, int], Awaitable[list[str]]]

_log = logging.getLogger(__name__)


class NotOwner(Exception):
    """The role that we are may not make or drop tables."""


@dataclass(slots=True)
class Upkeep:
    """Keeps the logs' partitions; a fault in it is logged and tried again, and harms nobody."""

    database: Database
    clock: Callable[[], datetime]
    keep_months: int
    """Whole months that are kept besides the current one."""
    device_days: int | None = None
    """Days after which a device that no longer asks is forgotten; ``None``: never."""
    trouble: str | None = None
    """Why partitions are not kept, if they are not."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look once an hour, and soon again where that failed, until ``stop`` is set."""
        while not stop.is_set():
            await first_of(stop.wait(), self.database.wait_ready())
            if stop.is_set():
                return
            seconds = LOOK_SECONDS if await self.look() else _AGAIN_SECONDS
            await pause(stop, seconds)

    async def look(self) -> bool:
        """Make what is missing and drop what is too old; return whether all of it could be done."""
        now = self.clock()
        well, trouble = True, None
        for log in LOGS:
            for work, what in _LOG_WORK:
                try:
                    await self._do(_of_log(work, log, now, self.keep_months), what)
                except DatabaseAway as error:
                    _log.warning("upkeep of %s has to wait: %s", log.table, error)
                    return False
                except NotOwner as error:
                    trouble = _ADVICE.format(log=log, error=error)
                except Exception as error:  # noqa: BLE001 -- rows go to the default partition meanwhile
                    _log.exception("upkeep of %s failed; rows go to %s meanwhile", log.table, log.default)
                    well, trouble = False, f"upkeep of {log.table} failed: {error}"
        self.trouble = trouble
        return await self._forget(now) and well

    async def _forget(self, now: datetime) -> bool:
        """Forget devices that no longer ask, if that is wanted."""
        days = self.device_days
        if days is None:
            return True
        try:
            await self._do(lambda connection: forget_devices(connection, now, days), "forgotten")
        except Exception as error:  # noqa: BLE001 -- they are only listed for longer
            _log.warning("devices that no longer ask are not forgotten yet: %s", error)
            return False
        return True

    async def _do(self, work: _Work, what: str) -> None:
        done = await self.database.run(_alone(work), _WORK_SECONDS)
        if done:
            _log.info("%s: %s", what, ", ".join(done), extra={"event": "upkeep"})


def _of_log(work: _LogWork, log: PartitionedLog, now: datetime, keep_months: int) -> _Work:
    return lambda connection: work(connection, log, now, keep_months)


def _alone(work: _Work) -> _Work:
    """Do it unless another server does it right now."""

    async def guarded(connection: Connection) -> list[str]:
        row = await (await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK,))).fetchone()
        if row is None or not row[0]:
            return []
        try:
            return await work(connection)
        except psycopg.errors.InsufficientPrivilege as error:
            # Not the database's fault, nor a reason to do without it: rows are written all the same.
            raise NotOwner(f"{error.diag.message_primary}") from error

    return guarded
