"""What is written durably: the records of one request, or changes; as bytes for the spool, as SQL for the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from repo_server.core.wire import UpdateRecord
from repo_server.store.database import Connection
from repo_server.store.events import Change, write_changes
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


class Changes(msgspec.Struct, frozen=True, tag="changes"):
    """What happened at one time, each subject at most once."""

    at: datetime
    changes: tuple[Change, ...]

    @property
    def weight(self) -> int:
        """How many subjects this is."""
        return len(self.changes)

    @property
    def name(self) -> str:
        """What this is, for the log."""
        return f"events of {', '.join(change.subject for change in self.changes)}"

    def parts(self) -> list[Changes]:
        """Return each change by itself."""
        return [Changes(self.at, (change,)) for change in self.changes]


Entry: TypeAlias = Records | Changes

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """Return the bytes for the spool; raise ``RecursionError`` for absurdly nested details."""
    return _encoder.encode(entry)


def decode(data: bytes) -> Entry:
    """Read what ``encode`` made; raise ``msgspec.MsgspecError``: another version's."""
    return _decoder.decode(data)


def writing(entries: Sequence[Entry]) -> Callable[[Connection], Awaitable[Any]]:
    """Return what writes them in one transaction; what is there already is not written again."""
    rows = [
        (entry.device_id, record, entry.received_at)
        for entry in entries
        if isinstance(entry, Records)
        for record in entry.records
    ]
    # One after the other: a subject may change in each.
    writes = [write_changes(entry.changes, entry.at) for entry in entries if isinstance(entry, Changes)]
    writes.append(write_records(rows))

    async def work(connection: Connection) -> None:
        # Acknowledged means durable, also where the database or the role is set to another opinion.
        await connection.execute(
            "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
        )
        for write in writes:
            await write(connection)

    return work
