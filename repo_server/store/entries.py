"""What is written durably: the records of one request, or events; as bytes for the spool, as SQL for the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from repo_server.core.wire import UpdateRecord
from repo_server.store.database import Connection
from repo_server.store.records import write_records


class Records(msgspec.Struct, frozen=True, tag="records"):
    """Update log records of one device, as they were received."""

    device_id: str
    received_at: datetime
    records: tuple[UpdateRecord, ...]

    @property
    def weight(self) -> int:
        """How many rows this is."""
        return len(self.records)

    @property
    def name(self) -> str:
        """What this is, for the log; the values themselves may be anything."""
        return f"records {', '.join(str(record.record_id) for record in self.records)} of device {self.device_id}"

    def parts(self) -> list[Records]:
        """Return each record by itself."""
        return [Records(self.device_id, self.received_at, (record,)) for record in self.records]


Entry: TypeAlias = Records

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """Return the bytes for the spool; raise ``RecursionError`` for absurdly nested details."""
    return _encoder.encode(entry)


def decode(data: bytes) -> Entry:
    """Read what ``encode`` made; raise ``msgspec.MsgspecError``: another version's."""
    return _decoder.decode(data)


def writing(entries: Sequence[Entry]) -> Callable[[Connection], Awaitable[Any]]:
    """Return what writes them in one transaction; what is there already is not written again."""
    rows = [(entry.device_id, record, entry.received_at) for entry in entries for record in entry.records]
    write = write_records(rows)

    async def work(connection: Connection) -> None:
        # Acknowledged means durable, also where the database or the role is set to another opinion.
        await connection.execute(
            "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
        )
        await write(connection)

    return work
