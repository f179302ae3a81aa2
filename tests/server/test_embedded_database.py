"""The server's own PostgreSQL after kills and damage, and a given one instead."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from pathlib import Path

import psycopg
from support.server import running, wait_until
from support.serving import lives, postmaster, query
from support.trees import Tree

from repo_server.store.embedded import EmbeddedPostgres


def test_a_database_that_is_unreachable_at_the_start_is_said_and_not_waited_for(tree: Tree, tmp_path: Path) -> None:
    """Promise 4; the password never gets into the log."""
    url = "postgresql://someone:hush-hush@127.0.0.1:1/nothing"
    with running(tree.root, tmp_path / "state", "--database-url", url) as server:
        assert server.offered() == {"service": "1.2.3"}
        server.wait_for_database("away")
        assert "agents are served without it" in server.log
        assert server.post("/v1/status", {"device_id": str(uuid.uuid4()), "records": []}).status == 200
    assert "hush-hush" not in server.log


def test_a_given_database_is_used_and_left_running(tree: Tree, tmp_path: Path) -> None:
    """Two servers on one PostgreSQL, here the embedded one of the first."""
    device_id = str(uuid.uuid4())
    with running(tree.root, tmp_path / "one", database=True) as first:
        folder = os.open(tmp_path / "one" / "postgres", os.O_RDONLY)
        os.set_inheritable(folder, True)
        url = f"postgresql:///postgres?host=/proc/{os.getpid()}/fd/{folder}&user=postgres"
        with running(tree.root, tmp_path / "two", "--database-url", url, database=True) as second:
            second.check(device_id=device_id)
            wait_until(lambda: first.get(f"/v1/devices/{device_id}").status == 200, "it is written", second.log_path)
        os.close(folder)
        assert first.get(f"/v1/devices/{device_id}").status == 200
        assert not (tmp_path / "two" / "postgres").exists()


def test_a_killed_server_leaves_nothing_that_its_successor_cannot_handle(tree: Tree, tmp_path: Path) -> None:
    """Promise 1: SIGKILL leaves a PostgreSQL running; the next server ends it and finds everything that was kept."""
    record = {
        "record_id": str(uuid.uuid4()), "component_name": "ui", "trigger_source": "x", "requested_version": "1.0.0",
        "status": "success", "attempt_timestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    with running(tree.root, tmp_path / "state", database=True) as server:
        orphan = postmaster(server.state)
        report = {"device_id": str(uuid.uuid4()), "records": [record]}
        assert server.post("/v1/status", report).json()["accepted"] == [record["record_id"]]
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    assert lives(orphan)
    with running(tree.root, tmp_path / "state", database=True) as server:
        assert postmaster(server.state) != orphan
        assert not lives(orphan)
        rows = query(
            server.state, "SELECT count(*) FROM agent_update_status_log WHERE record_id = %s", record["record_id"]
        )
        assert rows == [(1,)]


def test_a_child_of_a_killed_postgresql_that_still_works_on_the_data_is_ended_before_another_one_starts(
    tmp_path: Path,
) -> None:
    """Two on one folder would destroy it, and the lock file, which keeps them apart, is removed."""
    first = EmbeddedPostgres(tmp_path)
    with contextlib.closing(psycopg.connect(first.ensure_running())) as connection:
        child = connection.execute("SELECT pg_backend_pid()").fetchall()[0][0]
        os.kill(child, signal.SIGSTOP)
        os.kill(postmaster(tmp_path), signal.SIGKILL)
        successor = EmbeddedPostgres(tmp_path)
        try:
            assert successor.ensure_running()
            assert not lives(child)
        finally:
            successor.stop()
            first.stop()


def test_a_lock_file_of_a_process_number_that_is_now_anothers_is_no_obstacle(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", database=True):
        pass
    lock = tmp_path / "state" / "postgres" / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n/elsewhere\n")
    with running(tree.root, tmp_path / "state", database=True):
        pass


def test_a_database_folder_that_was_never_finished_is_made_anew(tree: Tree, tmp_path: Path) -> None:
    """Promise 1: killed while the database was made."""
    state = tmp_path / "state"
    (state / "postgres.new-1").mkdir(parents=True)
    state.chmod(0o700)
    (state / "postgres.new-1" / "PG_VERSION").write_text("18\n")
    with running(tree.root, state, database=True):
        assert not (state / "postgres.new-1").exists()


def test_a_database_that_cannot_be_started_is_said_and_agents_are_served(tree: Tree, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "postgres").mkdir(parents=True)
    state.chmod(0o700)
    (state / "postgres" / "PG_VERSION").write_text("1\n")
    with running(tree.root, state, "--not-no-database") as server:
        server.wait_for_database("away")
        assert server.offered() == {"service": "1.2.3"}
