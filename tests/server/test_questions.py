"""Operators' questions to the database, in a real PostgreSQL: agents' reports have connections all the same."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import psycopg
import pytest
from support.databases import TestDatabase

from repo_server.store import DatabaseAway, TooSlow
from repo_server.store.checkins import WHILE_WRITING
from repo_server.store.database import POOL_SIZE, Connection, Database
from repo_server.store.devices import DeviceFilter, DeviceReader
from repo_server.store.events import page_query
from repo_server.store.failures import _SIGNATURES, MAX_VERSIONS, FailureReader
from repo_server.store.migrate import migrate
from repo_server.store.sightings import SHARED


async def sleep(connection: Connection) -> None:
    await connection.execute("SELECT pg_sleep(60)")


async def wait(connection: Connection) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(7)")


async def look(connection: Connection) -> None:
    await connection.execute("SELECT 1")


def test_slow_questions_leave_connections_for_what_agents_report(database: TestDatabase) -> None:
    """As many as there are connections made the database look as if it were away."""

    async def work(opened: Database) -> None:
        with psycopg.connect(database.url) as holder:
            holder.execute("SELECT pg_advisory_lock(7)")
            questions = [asyncio.create_task(opened.ask(wait)) for _ in range(POOL_SIZE + 2)]
            await asyncio.sleep(0)
            for _ in range(POOL_SIZE):
                await opened.run(look)
            assert not any(question.done() for question in questions)
        await asyncio.gather(*questions)
        assert opened.ready

    database.run(work)


def test_a_question_that_takes_too_long_is_ended_where_it_is_answered(database: TestDatabase) -> None:
    async def work(opened: Database) -> None:
        with pytest.raises(TooSlow, match="ask for less"):
            await opened.ask(sleep, 0.1)
        assert opened.ready
        await opened.run(look)

    database.run(work)
    assert database.query("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60%'"
                          " AND pid <> pg_backend_pid()") == [(0,)]  # fmt: skip


def test_a_question_that_a_table_of_others_does_not_understand_costs_nobody_else_the_database(
    database: TestDatabase,
) -> None:
    """CommandIT's own ``devices`` may have a column of another type; making our tables again does not mend that."""

    async def mistaken(connection: Connection) -> None:
        await connection.execute("SELECT FROM devices WHERE name = %s::uuid", (str(uuid.uuid4()),))

    async def work(opened: Database) -> None:
        with pytest.raises(DatabaseAway, match="operator does not exist"):
            await opened.ask(mistaken)
        for _ in range(20):
            await opened.run(look)
            await asyncio.sleep(0.02)

    database.run(work)


def test_failures_are_found_by_an_index_and_answered_within_bounds(database: TestDatabase) -> None:
    """Ten million attempts, and devices that say what they like, are not for one answer."""
    since = datetime(2000, 1, 1, tzinfo=UTC)

    async def work(opened: Database) -> dict[str, list[dict[str, object]]]:
        database.query(
            """
            INSERT INTO agent_update_status_log (device_id, component_name, requested_version, status, error_pattern)
            SELECT lpad(to_hex(n), 32, '0')::uuid, 'ui', n || '.0.0', 'failed', 'no ' || n % 2
            FROM generate_series(1, 400) AS n
            """
        )
        return await FailureReader(opened).failures(since, None, None, 1)

    found = database.run(work)
    (signature,), (version,) = found["signatures"], found["versions"]
    assert (signature["devices"], version["devices_failed"]) == (200, 1)
    assert list(signature["versions"].values()) == [1] * MAX_VERSIONS  # type: ignore[attr-defined]  # a dict
    values = {"since": since, "component": None, "version": None, "limit": 1, "versions": 1}
    with psycopg.connect(database.url) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {_SIGNATURES}", values))
    assert "_received_at_idx" in plan, plan
    assert "Seq Scan" not in plan, plan


def test_of_very_many_versions_those_of_most_devices_are_counted(database: TestDatabase) -> None:
    async def work(opened: Database) -> list[dict[str, object]]:
        database.query(
            """
            INSERT INTO devices (device_id, agent_updater_version)
            SELECT lpad(to_hex(n), 32, '0')::uuid, CASE WHEN n <= 3 THEN '0.9.0' ELSE n || '.0.0' END
            FROM generate_series(1, 100) AS n
            """
        )
        return await DeviceReader(opened).versions(DeviceFilter(), 5)

    found = database.run(work)
    assert [row["devices"] for row in found] == [3, 1, 1, 1, 1]
    assert found[0]["version"] == "0.9.0"


def test_events_are_found_by_an_index_whatever_is_asked_of_them(database: TestDatabase) -> None:
    migrate(database.url)
    asked: list[dict[str, object]] = [{}, {"kind": "recall"}, {"subject": "x"}, {"since": datetime.now(UTC)}]
    with psycopg.connect(database.url) as connection:
        connection.execute("SET enable_seqscan = off")
        for wanted in asked:
            query, values = page_query({"kind": None, **wanted}, 100)
            plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}", values))
            assert "Seq Scan" not in plan, plan
            assert "Filter" not in plan, plan


def test_ids_that_are_shared_are_found_by_an_index_in_a_table_that_was_never_analysed(database: TestDatabase) -> None:
    migrate(database.url)
    with psycopg.connect(database.url) as connection:
        connection.execute("INSERT INTO devices (device_id) SELECT gen_random_uuid() FROM generate_series(1, 2000)")
        connection.execute(WHILE_WRITING)
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {SHARED}", {"since": datetime.now(UTC)}))
    assert "Seq Scan" not in plan, plan
