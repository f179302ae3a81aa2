"""How check-ins come into the database when very many ask at once (design §7, §9)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import msgspec
from support.databases import TestDatabase
from support.server import check_body

from repo_server.core.channels import AssignedChannel, ChannelSource
from repo_server.core.model import Channel
from repo_server.core.wire import CheckRequest
from repo_server.store.checkins import CheckInWriter
from repo_server.store.counters import Counters
from repo_server.store.database import Database


def test_a_rush_is_written_a_part_at_a_time_the_longest_waiting_first(database: TestDatabase) -> None:
    request = msgspec.convert(check_body(), CheckRequest)
    ids = [str(uuid.UUID(int=number + 1)) for number in range(2500)]

    async def work(opened: Database) -> tuple[list[str], int]:
        writer = CheckInWriter(opened, Counters())
        for device_id in ids:
            writer.put(device_id, (), request, AssignedChannel(Channel.STABLE, ChannelSource.AGENT), datetime.now(UTC))
        await writer.flush(2000)
        first = [str(row[0]) for row in database.query("SELECT device_id FROM devices ORDER BY device_id")]
        await writer.flush()
        return first, database.query("SELECT count(*) FROM devices")[0][0]

    assert database.run(work) == (ids[:2000], 2500)
