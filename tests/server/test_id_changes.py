"""A whole fleet that changes the form of its ids at once (L53), in a real PostgreSQL."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import msgspec
from support.databases import TestDatabase

from repo_server.core.wire import UpdateRecord
from repo_server.store.database import Database
from repo_server.store.entries import Records, writing
from repo_server.store.identity import AT_ONCE, rename

OLD, NEW = (str(uuid.UUID(int=number)) for number in (1, 2))


async def report(opened: Database, device_id: str, *record_ids: str) -> None:
    """Store records as the server does."""
    said = {
        "component_name": "ui", "trigger_source": "x", "requested_version": "1.0.0", "status": "success",
        "attempt_timestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    records = tuple(msgspec.convert({**said, "record_id": name}, UpdateRecord) for name in record_ids)
    await opened.run(writing([Records(device_id, datetime(2026, 1, 1, tzinfo=UTC), records)]))


def test_reports_under_the_new_id_before_the_first_check_make_no_second_device(database: TestDatabase) -> None:
    """An agent reports before it checks; one whose answer was lost reports the same record under both ids."""
    both, first, second = (str(uuid.uuid4()) for _ in range(3))

    async def work(opened: Database) -> None:
        await report(opened, OLD, both, first)
        database.query("UPDATE devices SET last_agent_checkin = now()")
        await report(opened, NEW, both, second)
        await rename(opened, {NEW: [OLD]})

    database.run(work)
    assert database.query("SELECT device_id::text, previous_ids::text[] FROM devices") == [(NEW, [OLD])]
    told = database.query("SELECT device_id::text, record_id::text FROM agent_update_status_log")
    assert sorted(told) == sorted((NEW, record_id) for record_id in (both, first, second))


def test_a_report_under_an_id_that_its_device_has_changed_is_the_devices_own(database: TestDatabase) -> None:
    """It waited in a spool, or is sent again."""
    early, late = (str(uuid.uuid4()) for _ in range(2))

    async def work(opened: Database) -> None:
        await report(opened, OLD, early)
        await rename(opened, {NEW: [OLD]})
        await report(opened, OLD, early, late)

    database.run(work)
    assert database.query("SELECT device_id::text FROM devices") == [(NEW,)]
    told = database.query("SELECT device_id::text, record_id::text FROM agent_update_status_log")
    assert sorted(told) == sorted((NEW, record_id) for record_id in (early, late))


def test_a_device_that_goes_back_and_forth_between_two_ids_names_each_once(database: TestDatabase) -> None:
    async def work(opened: Database) -> None:
        await report(opened, OLD, str(uuid.uuid4()))
        for new, old in ((NEW, OLD), (OLD, NEW), (NEW, OLD)):
            await rename(opened, {new: [old]})

    database.run(work)
    assert database.query("SELECT device_id::text, previous_ids::text[] FROM devices") == [(NEW, [OLD])]


def test_a_fleet_that_changes_its_ids_moves_a_few_devices_at_a_time_each_with_its_history(
    database: TestDatabase,
) -> None:
    """One transaction for a batch of a thousand took longer than any may, and was begun again for ever."""
    count = 2 * AT_ONCE + 1
    changes = {str(uuid.UUID(int=2000 + n)): [str(uuid.UUID(int=n)), str(uuid.uuid4())] for n in range(1, count + 1)}

    async def work(opened: Database) -> None:
        database.query(
            f"""
            INSERT INTO devices (device_id) SELECT lpad(to_hex(n), 32, '0')::uuid FROM generate_series(1, {count}) AS n;
            INSERT INTO agent_update_status_log (device_id, component_name, requested_version, status)
                SELECT device_id, 'ui', '1.0.0', 'success' FROM devices
            """  # noqa: S608 -- a number
        )
        await rename(opened, changes)
        await rename(opened, changes)

    database.run(work)
    moved = database.query("SELECT device_id::text, previous_ids[1]::text FROM devices WHERE previous_ids IS NOT NULL")
    assert dict(moved) == {new: old for new, (old, _) in changes.items()}
    assert database.query("SELECT count(DISTINCT xmin::text) FROM devices") == [(3,)], "transactions"
    told = database.query("SELECT DISTINCT device_id::text FROM agent_update_status_log")
    assert {row[0] for row in told} == changes.keys()
