"""Nothing that was acknowledged is lost: not by a kill, a full disk or a database that refuses (design §7)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3
from support.databases import TestDatabase, cluster
from support.server import RunningServer, command, environment, running, wait_until
from support.serving import postmaster, query
from support.trees import Tree

KILLS = int(os.environ.get("KILL_ROUNDS", "1"))
"""``make soak`` does more."""


def record(text: str = "it did not answer") -> dict[str, Any]:
    return {
        "record_id": str(uuid.uuid4()), "component_name": "service", "trigger_source": "schedule", "status": "failed",
        "requested_version": "1.2.3", "error_message": text, "attempt_timestamp": "2026-11-21T18:00:00Z",
    }  # fmt: skip


def report(server: RunningServer, *records: dict[str, Any], device_id: str = str(uuid.UUID(int=77))) -> int:
    """Send records; expect them to be accepted, or none; return the status."""
    response = server.post("/v1/status", {"device_id": device_id, "records": list(records)})
    if response.status == 200:
        assert response.json()["accepted"] == [item["record_id"] for item in records], response.data
    return response.status


def conditions(server: RunningServer) -> set[str]:
    return {item["code"] for item in server.ready()["conditions"]}


@dataclass
class Clients:
    """Devices that report all the time, wherever the server is, and remember what was acknowledged."""

    url: str = ""
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        device_id = str(uuid.uuid4())
        waiting: list[dict[str, Any]] = []
        with urllib3.PoolManager(retries=False, timeout=30.0) as http:
            while not self.stop.is_set():
                waiting = waiting or [record(), record()]
                try:
                    answer = http.request(
                        "POST", f"{self.url}/v1/status", json={"device_id": device_id, "records": waiting}
                    )
                except urllib3.exceptions.HTTPError:
                    time.sleep(0.05)
                    continue
                if answer.status == 200:
                    self.acknowledged += [(device_id, record_id) for record_id in answer.json()["accepted"]]
                    # Half of the devices never see their answers, and send everything twice.
                    waiting = [] if int(device_id[0], 16) % 2 or record()["record_id"] < "8" else waiting

    @contextlib.contextmanager
    def at_work(self, count: int) -> Iterator[None]:
        threads = [threading.Thread(target=self.work) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()

    def more(self, count: int = 40) -> None:
        """Wait until more was acknowledged."""
        then = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) >= then + count, "more is acknowledged")


@contextlib.contextmanager
def started(tree: Path, state: Path, clients: Clients) -> Iterator[subprocess.Popen[str]]:
    """Run a server that may be killed, as the next of its kind does."""
    with state.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(
            command(tree, state), stdout=subprocess.PIPE, stderr=log, text=True, env=environment()
        )
    with process:
        try:
            assert process.stdout is not None
            clients.url = next(line for line in process.stdout if line.startswith("listening on ")).split()[-1]
            yield process
        finally:
            process.kill()


def ready(clients: Clients) -> bool:
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        database = urllib3.request("GET", f"{clients.url}/readyz", retries=False).json()["database"]
        return bool(database["state"] == "ready" and database["spool"]["entries"] == 0)
    return False


@pytest.mark.timeout(120 + 60 * KILLS)
def test_a_killed_server_and_a_killed_database_lose_no_acknowledged_record(tree: Tree, tmp_path: Path) -> None:
    """SIGKILL of either, of both, and of a server whose records are in the spool, under load (15 s)."""
    state, clients = tmp_path / "state", Clients()
    with contextlib.ExitStack() as stack:
        for round_ in range(KILLS):
            with started(tree.root, state, clients) as server:
                if round_ == 0:
                    stack.enter_context(clients.at_work(6))
                clients.more()
                wait_until(lambda: ready(clients), "the database takes records")
                clients.more()
                os.kill(postmaster(state), signal.SIGKILL)
                clients.more()
                wait_until(lambda: ready(clients), "the database is back")
                # Into the spool, and killed there: the database is stopped, and nobody starts it again.
                os.kill(postmaster(state), signal.SIGSTOP)
                clients.more()
                server.kill()
                os.kill(postmaster(state), signal.SIGKILL)
            with started(tree.root, state, clients) as server:
                clients.more()
                wait_until(lambda: ready(clients), "the spool is replayed")
                clients.more()
                server.kill()
    acknowledged = set(clients.acknowledged)
    with started(tree.root, state, clients) as server:
        wait_until(lambda: ready(clients), "the database is there")
        rows = query(state, "SELECT device_id::text, record_id::text FROM agent_update_status_log")
        # This one ends as it should, and takes its PostgreSQL along.
        server.terminate()
        server.wait(60)
    assert len(rows) == len(set(rows)), "a record is there twice"
    assert acknowledged <= set(rows), f"{len(acknowledged - set(rows))} acknowledged records are lost"
    assert "Traceback" not in state.with_suffix(".log").read_text()


def stored(database: TestDatabase) -> list[str]:
    """Return record ids in the order in which they were written."""
    rows = database.query("SELECT record_id::text FROM agent_update_status_log ORDER BY update_log_id")
    return [row[0] for row in rows]


def test_a_read_only_database_costs_no_record_and_no_check(database: TestDatabase, tree: Tree, tmp_path: Path) -> None:
    """A standby that was not promoted, or a managed cluster that ran out of its quota."""
    name = database.url.rpartition("=")[2]
    sent = [record() for _ in range(4)]
    with running(tree.root, tmp_path / "state", "--database-url", database.url) as server:
        server.wait_for_database()
        assert report(server, sent[0]) == 200
        switch(database, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        for item in sent[1:]:
            assert report(server, item) == 200
            assert server.offered() == {"service": "1.2.3"}
        wait_until(lambda: {"database_away", "records_spooled"} <= conditions(server), "it is said", server.log_path)
        wait_until(lambda: "read-only" in server.log, "the log says why", server.log_path)
        assert server.ready()["database"]["spool"]["entries"] == 3
        switch(database, f"ALTER DATABASE {name} RESET default_transaction_read_only")
        wait_until(lambda: stored(database) == [item["record_id"] for item in sent], "all are there", server.log_path)
        wait_until(lambda: not conditions(server), "nothing is wrong any more", server.log_path)
        assert "Traceback" not in server.log


def switch(database: TestDatabase, sql: str) -> None:
    """Change a database's setting and have every session take it up."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(sql)  # type: ignore[arg-type]  # a test's own
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_full_spool_turns_reports_away_until_there_is_room(tree: Tree, tmp_path: Path) -> None:
    """503 with Retry-After: agents keep their records. What it took before is replayed, in order."""
    sent: list[str] = []
    with cluster() as postgres:
        database = postgres.new()
        with running(tree.root, tmp_path / "state", "--database-url", database.url, "--spool-megabytes", "1") as server:
            server.wait_for_database()
            postgres.source.stop()
            while True:
                batch = [record("x" * 4000) for _ in range(20)]
                if report(server, *batch) != 200:
                    break
                sent += [item["record_id"] for item in batch]
            refused = server.post("/v1/status", {"device_id": str(uuid.UUID(int=77)), "records": batch})
            assert (refused.status, refused.json()["error_code"]) == (503, "database_unavailable")
            assert int(refused.headers["retry-after"]) > 0
            assert server.offered() == {"service": "1.2.3"}
            assert "spool_full" in conditions(server)
            assert len(sent) > 100
            folder = server.state / "spool"
            assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_000_000
            postgres.source.ensure_running()
            wait_until(lambda: report(server, *batch) == 200, "there is room again", server.log_path)
            sent += [item["record_id"] for item in batch]
            wait_until(lambda: len(stored(database)) == len(sent), "all are there", server.log_path)
            assert stored(database) == sent
            assert list(folder.iterdir()) == []
            wait_until(lambda: not conditions(server), "nothing is wrong any more", server.log_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 128 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m,mode=0700", "none", folder], check=False)
    if made.returncode != 0:
        pytest.skip("this machine does not mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.root
def test_a_database_whose_disk_is_full_costs_no_record_and_no_check(
    small_disk: Path, tree: Tree, tmp_path: Path
) -> None:
    """Whether it refuses or falls over; when there is room again, everything is there."""
    sent = []
    with cluster(small_disk) as postgres:
        database = postgres.new()
        with running(tree.root, tmp_path / "state", "--database-url", database.url) as server:
            server.wait_for_database()
            filler = small_disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(65536))
            wrong = {"database_refuses_writes", "database_away"}
            while not wrong & conditions(server):
                batch = [record("".join(uuid.uuid4().hex for _ in range(100))) for _ in range(50)]
                assert report(server, *batch) == 200
                assert server.offered(device_id=str(uuid.uuid4())) == {"service": "1.2.3"}
                sent += batch
            last = record()
            assert report(server, last) == 200
            filler.unlink()
            postgres.source.ensure_running()
            ids = [item["record_id"] for item in [*sent, last]]
            wait_until(lambda: stored_if_there(database) == ids, "all are there", server.log_path)
            wait_until(lambda: not conditions(server), "nothing is wrong any more", server.log_path)


def stored_if_there(database: TestDatabase) -> list[str]:
    with contextlib.suppress(psycopg.OperationalError):
        return stored(database)
    return []
