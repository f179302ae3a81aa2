"""Several processes that are one server (``--workers``)."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import time
from pathlib import Path

import pytest
from support.certificates import make_certificate
from support.load import load
from support.programs import free_port
from support.server import START_SECONDS, RunningServer, check_body, running, wait_until
from support.serving import lives, postmaster, query, strike
from support.trees import Tree

from repo_server.tree.treeio import write_atomic
from repo_server.web.protocol import IDLE_SECONDS

THREE = ("--workers", "3")


def workers(server: RunningServer) -> dict[int, int]:
    """Return the workers that live: number → process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == server.process.pid and b"worker" in words and state != "Z":
                    numbers = [word for word in words if word.startswith(b"--number=")]
                    found[int(numbers[0].partition(b"=")[2])] = int(entry.name)
    return found


def spooled(server: RunningServer) -> list[Path]:
    """Return what waits on the disk for the database."""
    return list(server.state.glob("spool*/*.spool"))


def conditions(server: RunningServer) -> set[str]:
    """Return what the worker that answers says is wrong, on a fresh connection, which any of them may take."""
    return {item["code"] for item in server.get("/readyz", {"connection": "close"}).json()["conditions"]}


def answers(server: RunningServer, times: int) -> set[str | None]:
    """Ask on fresh connections, which any of the workers may take."""
    return {server.offered(headers={"connection": "close"}).get("service") for _ in range(times)}


def generations(server: RunningServer) -> list[str]:
    """Return the number of each worker's catalogue."""
    text = server.get("/metrics").data.decode()
    return re.findall(r'repo_server_catalogue_generation{worker="\d"} (\d+)', text)


def test_a_killed_worker_costs_its_own_connections_only_and_nothing_that_was_acknowledged(
    tree: Tree, tmp_path: Path
) -> None:
    """NFR-REL-004. One PostgreSQL, one writer of the ledger, every record once."""
    with running(tree.root, tmp_path / "state", *THREE, database=True) as server:
        database, before = postmaster(server.state), workers(server)
        assert sorted(before) == [0, 1, 2]
        with load(server.url, clients=12, reports=True) as asking:
            asking.wait_for(300)
            os.kill(before[1], signal.SIGKILL)
            wait_until(
                lambda: workers(server).get(1, before[1]) != before[1], "there is another worker", server.log_path
            )
            asking.wait_for(300)
        assert len(asking.errors) <= 12, asking.errors
        assert "was ended by SIGKILL" in server.log
        wait_until(lambda: not server.ready()["conditions"], "all workers are there", server.log_path)
        assert postmaster(server.state) == database
        stored = query(server.state, "SELECT record_id::text FROM agent_update_status_log")
        assert sorted(row[0] for row in stored) == sorted(asking.records)
        wait_until(
            lambda: query(server.state, "SELECT count(*) FROM devices")[0][0] > 0.6 * len(asking.devices),
            "check-ins are written, but for those that the killed worker had not written",
        )
        assert (tree.root / ".published").read_text().count("\n") == 1
        assert server.stop() == 0
        assert not workers(server)
        assert "Traceback" not in server.log


def test_every_worker_knows_of_a_promotion(tree: Tree, tmp_path: Path) -> None:
    newer = tree.add("service-linux-amd64-1.3.0.tar.gz", channel="beta")
    with running(tree.root, tmp_path / "state", *THREE) as server:
        assert answers(server, 30) == {"1.2.3"}
        write_atomic(newer.with_name(f"{newer.name}.channel"), b"stable\n")
        wait_until(lambda: answers(server, 1) == {"1.3.0"}, "the promotion is served", server.log_path)
        wait_until(lambda: answers(server, 30) == {"1.3.0"}, "all workers serve it", server.log_path)
        wait_until(lambda: generations(server) == ["2", "2", "2"], "each worker has it, by one number", server.log_path)
        newer.write_bytes(b"other bytes under the same version")
        wait_until(
            lambda: server.get(f"/v1/packages/{newer.name}").status != 200,
            "changed bytes are not served",
            server.log_path,
        )


def test_when_the_main_process_is_killed_another_server_takes_over_at_once_whatever_its_workers_do(
    tree: Tree, tmp_path: Path
) -> None:
    """Promise 1: most workers leave by themselves, one hangs; none may share a spool or a port with the next server."""
    options = (*THREE, "--port", str(free_port()))
    with running(tree.root, tmp_path / "state", *options, database=True) as server:
        left, orphan = workers(server), postmaster(server.state)
        os.kill(left[2], signal.SIGSTOP)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        began = time.monotonic()
        with running(tree.root, tmp_path / "state", *options, database=True) as successor:
            assert time.monotonic() - began < START_SECONDS
            assert not any(lives(pid) for pid in (*left.values(), orphan))
            assert successor.offered() == {"service": "1.2.3"}
            assert sorted(workers(successor)) == [0, 1, 2]
        assert "the main process is gone" in server.log
        assert f"ending process {left[2]}, a worker that an earlier repo-server left" in server.log


def test_a_worker_that_is_replaced_while_files_are_bad_goes_on_with_the_last_good_ones(
    tree: Tree, tmp_path: Path
) -> None:
    """Somebody edits secrets and certificate, and just then a worker dies; SIGHUP has all of them read again."""
    secrets, secret = tmp_path / "secrets", {"x-commandit-updater-secret": "a" * 32, "connection": "close"}
    secrets.write_text(f"one:{'a' * 32}\n")
    secrets.chmod(0o600)
    certificate, key = make_certificate(tmp_path)
    options = ("--secrets", str(secrets), "--tls-cert", str(certificate), "--tls-key", str(key))
    with running(tree.root, tmp_path / "state", "--workers", "2", *options, ready=False) as server:
        trusting = ssl.create_default_context(cafile=str(certificate))
        trusting.check_hostname = False
        server.http.connection_pool_kw |= {"ssl_context": trusting, "assert_hostname": False}
        good, before = certificate.read_bytes(), workers(server)
        secrets.write_text("no secret\n")
        certificate.write_bytes(b"no certificate")
        for number, pid in before.items():
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda n=number: workers(server).get(n, before[n]) != before[n], "it is replaced")
        wait_until(lambda: conditions(server) == {"secrets_not_reloaded", "certificate_not_renewed"}, "both are there")
        for _ in range(5):
            assert server.offered(headers=secret) == {"service": "1.2.3"}
        certificate.write_bytes(good)
        status = secrets.stat()
        secrets.write_text(f"o:{'b' * 7}\n")
        os.utime(secrets, ns=(status.st_atime_ns, status.st_mtime_ns))
        audit = server.state / "audit.log"
        audit.rename(audit.with_name("audit.moved"))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not conditions(server), "all is read again", server.log_path)
        # Each worker reads within a second, and either of them may be the one that answers.
        wait_until(lambda: 200 not in {server.post("/v1/check", check_body(), secret).status for _ in range(8)}, "gone")
        assert server.post("/v1/check", check_body(), secret).status in {401, 429}
        wait_until(audit.exists, "the audit's file is opened again")
        assert server.ready()["ready"]


def test_any_worker_shows_the_figures_of_all(tree: Tree, tmp_path: Path) -> None:
    """NFR-PER-003: a scrape reaches one of them, and must not miss the others."""

    def checks() -> list[int]:
        text = server.get("/metrics").data.decode()
        assert text.count("# TYPE repo_server_checks_total counter") == 1
        assert 'repo_server_workers_ready{worker="main"} 3.0' in text
        return [int(count) for count in re.findall(r'_checks_total{outcome="update",worker="\d"} (\d+)', text)]

    with running(tree.root, tmp_path / "state", *THREE) as server:
        # Whichever is awake takes a connection; many at once keep several awake.
        with load(server.url, clients=12, headers={"connection": "close"}) as asking:
            wait_until(lambda: len(checks()) > 1, "several workers answer", server.log_path)
        assert sum(checks()) == asking.answered


def test_a_worker_that_is_asked_to_end_finishes_and_is_replaced(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", *THREE) as server, load(server.url) as asking:
        before = workers(server)
        asking.wait_for(100)
        for number, pid in before.items():
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda n=number: workers(server).get(n, before[n]) != before[n], "another one", server.log_path)
        asking.wait_for(100)
    assert asking.errors == []


def test_a_single_process_takes_up_what_several_workers_had_spooled(tree: Tree, tmp_path: Path) -> None:
    """Design §7: nothing acknowledged is lost, also when the number of workers changes."""
    with running(tree.root, tmp_path / "state", *THREE, database=True) as server:
        frozen = strike(postmaster(server.state), signal.SIGSTOP)
        try:
            # Each on a connection of its own, so that several workers get some.
            with load(server.url, reports=True, headers={"connection": "close"}) as asking:
                wait_until(
                    lambda: len(asking.records) > 20 and len({path.parent for path in spooled(server)}) > 1,
                    "several workers spool records",
                    server.log_path,
                )
            server.process.kill()
            wait_until(lambda: not workers(server), "the workers leave", server.log_path)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
    with running(tree.root, tmp_path / "state", database=True) as server:
        wait_until(lambda: server.ready()["database"]["spool"]["entries"] == 0, "they are replayed", server.log_path)
        stored = query(server.state, "SELECT record_id::text FROM agent_update_status_log")
        assert {row[0] for row in stored} >= asking.records
        assert not list(server.state.glob("spool-*"))


@pytest.mark.parametrize("options", [(), THREE])
def test_a_restart_on_a_socket_that_stays_open_loses_no_request(
    tree: Tree, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """As systemd does: it keeps the socket, and who connects meanwhile waits in it (NFR-REL-004)."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with contextlib.ExitStack() as stack:
            with running(tree.root, tmp_path / "state", *options, listener=listener) as server:
                assert server.url == url
                asking = stack.enter_context(load(url))
                asking.wait_for(200)
                connections = asking.connections
                assert server.stop() == 0
            with running(tree.root, tmp_path / "state", *options, listener=listener):
                asking.wait_for(200)
                stack.close()
        assert asking.errors == []
        assert asking.connections > connections, "the clients were not told to connect again"


@pytest.mark.parametrize("options", [(), THREE])
def test_what_has_come_in_before_the_signal_is_answered(tree: Tree, tmp_path: Path, options: tuple[str, ...]) -> None:
    """SIGTERM under load: nobody loses a request on an open connection; new ones find nobody."""
    with running(tree.root, tmp_path / "state", *options, database=True) as server:
        with load(server.url, reports=True) as asking:
            asking.wait_for(200)
            assert server.stop() == 0
        assert asking.errors
        assert all("on a new connection" in error for error in asking.errors), asking.errors
    with running(tree.root, tmp_path / "state", database=True) as server:
        stored = query(server.state, "SELECT record_id::text FROM agent_update_status_log")
        assert sorted(row[0] for row in stored) == sorted(asking.records)


def test_an_idle_client_that_asks_when_the_server_stops_is_answered_and_told(tree: Tree, tmp_path: Path) -> None:
    """Its request may be on the way when the server decides to close the connection."""
    with running(tree.root, tmp_path / "state") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            server.process.send_signal(signal.SIGTERM)
            told = asked = None
            while told is None:
                time.sleep(0.02)
                since, asked = asked, time.monotonic()
                if since is not None and asked - since > IDLE_SECONDS / 2:
                    pytest.skip("this machine is too busy: the client itself was idle for too long")
                connection.request("GET", "/healthz")
                response = connection.getresponse()
                assert response.read() == b'{"status":"ok"}'
                told = response.headers["connection"]
            assert told == "close"


def test_a_socket_that_others_can_reach_is_refused_without_secrets(tree: Tree, tmp_path: Path) -> None:
    """NFR-SRV-010 holds for the address that is listened on, whoever opened it."""
    with (
        socket.create_server(("0.0.0.0", 0)) as listener,  # noqa: S104 -- what is to be refused
        pytest.raises(AssertionError, match=r"ended with 3"),
        running(tree.root, tmp_path / "state", listener=listener),
    ):
        pass
