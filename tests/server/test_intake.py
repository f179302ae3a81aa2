"""The group commit of reports, with a real PostgreSQL and a real spool (FR-LOG-001, design §7)."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.databases import TestDatabase

from repo_server.core.wire import UpdateRecord, UpdateStatus
from repo_server.store import DatabaseAway
from repo_server.store.counters import Counters
from repo_server.store.database import Database
from repo_server.store.entries import Records
from repo_server.store.intake import Intake
from repo_server.store.source import GivenServer
from repo_server.store.spool import Spool

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
REFUSE_ONE_VERSION = """
ALTER TABLE agent_update_status_log ADD CONSTRAINT ours CHECK (requested_version <> '13.0.0')
"""


def report(version: str) -> Records:
    record = UpdateRecord(uuid.uuid4(), "ui", "schedule", version, UpdateStatus.SUCCESS, NOW)
    other = UpdateRecord(uuid.uuid4(), "service", "schedule", "1.0.0", UpdateStatus.SUCCESS, NOW)
    return Records(str(uuid.uuid4()), NOW, (record, other))


def test_a_record_that_the_database_refuses_costs_the_others_few_commits(
    database: TestDatabase, tmp_path: Path
) -> None:
    """One device with a bad record must not undo the group commit for all who report with it."""
    counters = Counters()
    reports = [report(f"{number}.0.0") for number in range(64)]

    async def work(opened: Database) -> None:
        database.query(REFUSE_ONE_VERSION)
        intake, stop = Intake(opened, Spool(tmp_path / "spool", 1_000_000), counters), asyncio.Event()
        waiting = [asyncio.create_task(intake.put(entry)) for entry in reports]
        await asyncio.sleep(0)
        running = asyncio.create_task(intake.run(stop))
        refused = await asyncio.gather(*waiting)
        stop.set()
        await running
        assert [len(one) for one in refused] == [1 if number == 13 else 0 for number in range(64)]

    database.run(work)
    assert counters.record_batches <= 8
    assert (counters.records_stored, counters.records_refused) == (127, 1)
    assert database.query("SELECT count(*) FROM agent_update_status_log") == [(127,)]


def test_a_spool_that_cannot_be_written_is_said_until_it_can(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk looked like a database that is merely away, and was logged with each report."""
    counters, folder = Counters(), tmp_path / "spool"

    async def work() -> None:
        away = Database(GivenServer("host=nowhere.invalid"), lambda: NOW)
        intake, stop = Intake(away, Spool(folder, 1_000_000), counters), asyncio.Event()
        running = asyncio.create_task(intake.run(stop))
        while not intake.opened:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0)
        folder.rmdir()
        for _ in range(3):
            with pytest.raises(DatabaseAway, match="the spool cannot take more"):
                await intake.put(report("1.0.0"))
            assert counters.spool_full
        folder.mkdir()
        assert await intake.put(report("1.0.0")) == ()
        assert not counters.spool_full
        stop.set()
        await running

    asyncio.run(work())
    assert [record.getMessage() for record in caplog.records if "records are not taken" in record.getMessage()] == [
        f"records are not taken, agents keep them: the spool {folder} cannot be written: No such file or directory"
    ]
