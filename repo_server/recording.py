"""What the routes' ports stand for: the store, or nothing where there is no database."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from repo_server.core.wire import CheckRequest, UpdateRecord
from repo_server.routes.context import RecordsUnavailable, Rejected
from repo_server.store import DatabaseAway
from repo_server.store.devices import DeviceReader
from repo_server.store.records import RecordWriter

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class StoredRecords:
    """Update log records in PostgreSQL."""

    writer: RecordWriter

    async def store(self, device_id: str, records: Sequence[UpdateRecord], now: datetime) -> tuple[Rejected, ...]:
        """Store records, as the port says."""
        refused = await _translated(self.writer.store(device_id, records, now))
        return tuple(Rejected(item.record, "refused_by_database", item.message) for item in refused)


@dataclass(frozen=True, slots=True)
class StoredDevices:
    """Devices in PostgreSQL."""

    reader: DeviceReader

    async def page(self, after: str | None, limit: int) -> list[dict[str, Any]]:
        """Return devices by id, after one."""
        return await _translated(self.reader.page(after, limit))

    async def get(self, device_id: str) -> dict[str, Any] | None:
        """Return one device with its last attempts."""
        return await _translated(self.reader.get(device_id))


@dataclass(frozen=True, slots=True)
class NothingRecorded:
    """A server without a database: agents are served, nothing is remembered."""

    def put(self, device_id: str, previous_ids: Sequence[str], request: CheckRequest, now: datetime) -> None:
        """Forget it."""

    async def store(self, _device_id: str, _records: Sequence[UpdateRecord], _now: datetime) -> NoReturn:
        """Say that it cannot be kept."""
        raise RecordsUnavailable(_NO_DATABASE)

    async def page(self, _after: str | None, _limit: int) -> NoReturn:
        """Say that nothing is known."""
        raise RecordsUnavailable(_NO_DATABASE)

    async def get(self, _device_id: str) -> NoReturn:
        """Say that nothing is known."""
        raise RecordsUnavailable(_NO_DATABASE)


_NO_DATABASE = "the server runs with --no-database"


async def _translated(answer: Awaitable[_Value]) -> _Value:
    try:
        return await answer
    except DatabaseAway as error:
        raise RecordsUnavailable("it is away, see the server's log") from error
