"""Behind a pooler that gives every transaction another server: nothing hangs on a session (README)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from support.databases import TestDatabase
from support.load import load
from support.pooler import pooled
from support.server import running, wait_until
from support.trees import Tree

from repo_server.store.database import Connection, Database

LEFT = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
SEEN = "SELECT count(*) FROM devices WHERE last_seen_day IS NOT NULL"


def test_two_servers_behind_one_pooler_migrate_record_and_leave_no_lock(
    database: TestDatabase, tree: Tree, tmp_path: Path
) -> None:
    """As in a managed cluster: prepared statements, session settings and session locks belong to nobody there."""
    with pooled(database) as pool, contextlib.ExitStack() as stack:
        options = "--database-url", pool.url
        one, two = (stack.enter_context(running(tree.root, tmp_path / n, *options, database=True)) for n in "ab")
        with load(one.url, clients=6, reports=True) as asking, load(two.url, clients=6, reports=True) as others:
            asking.wait_for(600)
            others.wait_for(600)
        assert asking.errors == others.errors == []
        records, devices = asking.records | others.records, asking.devices | others.devices
        wait_until(
            lambda: database.query(SEEN)[0][0] == len(devices),
            "check-ins are written",
            one.log_path,
        )
        stored = database.query("SELECT record_id::text FROM agent_update_status_log")
        assert sorted(row[0] for row in stored) == sorted(records)
        assert database.query(LEFT) == [(0,)]
        for server in (one, two):
            assert server.ready()["conditions"] == []
            assert "prepared statement" not in server.log


def test_times_and_limits_hold_in_every_transaction_and_leave_no_trace_on_the_server(
    database: TestDatabase,
) -> None:
    name = database.url.rpartition("=")[2]
    database.query(f"ALTER DATABASE {name} SET timezone TO 'Asia/Kathmandu'")

    async def look(connection: Connection) -> list[str]:
        shown = [await connection.execute(f"SHOW {what}") for what in ("timezone", "lock_timeout")]
        return [row[0] for cursor in shown for row in await cursor.fetchall()]

    async def work(opened: Database) -> list[list[str]]:
        return [await opened.run(look) for _ in range(8)]

    with pooled(database) as pool:
        assert pool.run(work) == [["UTC", "30s"]] * 8
        assert pool.query("SHOW lock_timeout") == [("0",)]
