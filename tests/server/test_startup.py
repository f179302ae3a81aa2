"""Starting and stopping: every refusal has an exit code and says what to do (design §11)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import urllib3
from support.certificates import make_certificate
from support.server import command, environment, running, wait_until
from support.serving import SERVICE, lives, postmaster, query
from support.trees import Tree

from repo_server.store.embedded import EmbeddedPostgres


def refused(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a server that must not start; return its exit code and what it said."""
    ended = subprocess.run(
        list(arguments), capture_output=True, text=True, check=False, timeout=60, env=environment(**(env or {}))
    )
    assert "Traceback" not in ended.stderr
    assert "listening" not in ended.stdout
    return ended.returncode, ended.stderr


def test_the_line_on_stdout_means_that_agents_are_served(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", ready=False) as server:
        assert server.get("/readyz").status == 200
        assert server.offered() == {"service": "1.2.3"}


def test_until_the_first_look_is_done_agents_are_asked_to_come_back(tmp_path: Path) -> None:
    """A cold start takes as long as hashing the tree; it says so, and a signal ends it at once."""
    tree = Tree(tmp_path / "tree")
    with tree.add(SERVICE, b"").open("wb") as file:
        file.truncate(40 * 1024**3)
    (tree.root / "repo.toml").write_text('product = "commandit"\n[limits]\nmax_file_bytes = 99999999999\n')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--no-database", "--port", str(port))
    with subprocess.Popen(
        command(tree.root, tmp_path / "state", *options), stderr=subprocess.DEVNULL, env=environment()
    ) as process:
        wait_until(lambda: accepts(port), "it listens")
        with urllib3.PoolManager(retries=False) as http:
            ready = http.request("GET", f"http://127.0.0.1:{port}/readyz")
            assert (ready.status, ready.json()["scan"]["state"]) == (503, "scanning")
            for path in ("/v1/problems", f"/v1/packages/{SERVICE}"):
                response = http.request("GET", f"http://127.0.0.1:{port}{path}")
                assert (response.status, response.json()["error_code"]) == (503, "not_ready")
                assert int(response.headers["retry-after"]) > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_port_that_is_taken_is_said(tree: Tree, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = refused(*command(tree.root, tmp_path / "state", "--port", str(port)))
    assert code == 1
    assert f"port {port}" in said
    assert "--port" in said


def test_an_address_that_is_not_ours_is_said(tree: Tree, tmp_path: Path) -> None:
    code, said = refused(*command(tree.root, tmp_path / "state", "--host", "192.0.2.1", "--insecure-no-auth"))
    assert (code, "192.0.2.1" in said) == (1, True)


def test_a_tree_that_is_missing_or_no_folder_is_said(tmp_path: Path) -> None:
    code, said = refused(*command(tmp_path / "nowhere", tmp_path / "state"))
    assert (code, "does not exist" in said, "repotool init" in said) == (1, True, True)
    (tmp_path / "file").write_text("")
    code, said = refused(*command(tmp_path / "file", tmp_path / "state"))
    assert (code, "not a folder" in said) == (1, True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--port", "x"], "--port"),
        (["--workers", "0"], "--workers"),
        (["--nonsense"], "--nonsense"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
        (["--database-url", "not a url"], "--database-url"),
        (["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.pem"], "/nowhere.pem"),
    ],
)
def test_bad_settings_are_wrong_usage(tree: Tree, tmp_path: Path, options: list[str], expected: str) -> None:
    code, said = refused(*command(tree.root, tmp_path / "state", *options))
    assert (code, expected in said) == (2, True), said


def test_a_secrets_file_without_secrets_is_wrong_usage(tree: Tree, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.touch(mode=0o600)
    assert refused(*command(tree.root, tmp_path / "state", "--secrets", str(secrets)))[0] == 2


def test_an_open_server_is_refused(tree: Tree, tmp_path: Path) -> None:
    code, said = refused(*command(tree.root, tmp_path / "state", "--host", "0.0.0.0"))  # noqa: S104 -- refused
    assert (code, "--insecure-no-auth" in said) == (3, True)
    with running(tree.root, tmp_path / "state", "--host", "0.0.0.0", "--insecure-no-auth", ready=False):  # noqa: S104
        pass


def test_a_state_folder_or_secrets_file_that_others_can_read_is_refused(tree: Tree, tmp_path: Path) -> None:
    """NFR-SEC-007."""
    secrets = tmp_path / "secrets"
    secrets.write_text("a:0123456789abcdef\n")
    secrets.chmod(0o644)
    code, said = refused(*command(tree.root, tmp_path / "state", "--secrets", str(secrets)))
    assert (code, f"chmod 0600 {secrets}" in said) == (3, True)
    (tmp_path / "open").mkdir(mode=0o755)
    code, said = refused(*command(tree.root, tmp_path / "open"))
    assert (code, "chmod 0700" in said) == (3, True)


def test_a_second_server_on_one_state_folder_is_busy(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state") as server:
        code, said = refused(*command(tree.root, tmp_path / "state"))
        assert (code, "another repo-server" in said) == (4, True)
        assert server.get("/healthz").status == 200
    with running(tree.root, tmp_path / "state"):
        pass


def test_a_state_folder_is_made_private(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "a" / "state"):
        assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700


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


def test_a_key_that_this_version_does_not_use_is_not_ignored_silently(tree: Tree, tmp_path: Path) -> None:
    state = tmp_path / "state"
    ended = []

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        ended.extend(process.stdout)

    with subprocess.Popen(
        command(tree.root, state, "--no-database", "--online-key", str(tmp_path / "online.pem")),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        reader = threading.Thread(target=read, args=(process,))
        reader.start()
        wait_until(lambda: any("listening" in line for line in ended), "it listens")
        process.send_signal(signal.SIGTERM)
        reader.join()
        assert process.stderr is not None
        assert "not in this version" in process.stderr.read()
        assert process.wait(30) == 0
    assert any("not in this version" in line for line in ended)


def test_settings_come_from_environment_and_file_too(tree: Tree, tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("next_check_seconds = 77\nlog_level = 'debug'\n")
    env = {"REPO_SERVER_CONFIG": str(config), "REPO_SERVER_BASE_URL": "https://u.example", "REPO_SERVER_TYPO": "1"}
    with running(tree.root, tmp_path / "state", env=env) as server:
        answer = server.check()
        assert answer["next_check_seconds"] == 77
        assert answer["updates"][0]["url"].startswith("https://u.example/v1/packages/")
        assert "REPO_SERVER_TYPO" in server.log


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_postgresql_with_it(tree: Tree, tmp_path: Path, how: signal.Signals) -> None:
    """What was asked a moment before the signal is still written; a restart finds it."""
    device_id = str(uuid.uuid4())
    with running(tree.root, tmp_path / "state", database=True) as server:
        pid = postmaster(server.state)
        server.check(device_id=device_id)
        assert server.stop(how) == 0
        assert not lives(pid)
        assert not (server.state / "postgres" / "postmaster.pid").exists()
        assert "Traceback" not in server.log
        assert "RuntimeWarning" not in server.log
    with running(tree.root, tmp_path / "state", database=True) as server:
        assert server.get(f"/v1/devices/{device_id}").status == 200


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


BIG = 64 * 1024 * 1024
"""Bytes; more than fits into the buffers between server and client."""


@contextlib.contextmanager
def slow_download(port: int) -> Iterator[tuple[socket.socket, int]]:
    """Begin a download, take only the beginning of it, and say how many bytes are still to come."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"GET /v1/packages/{SERVICE} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(64)
        yield connection, BIG - len(head.partition(b"\r\n\r\n")[2])


@pytest.fixture
def big(tmp_path: Path) -> Tree:
    """Make a tree with a release that takes a while to download."""
    tree = Tree(tmp_path / "tree")
    tree.add(SERVICE, b"\0" * BIG)
    return tree


def test_running_downloads_finish_after_the_signal(big: Tree, tmp_path: Path) -> None:
    with running(big.root, tmp_path / "state") as server, slow_download(server.port) as (connection, size):
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(server.port), "no new connection is taken", server.log_path)
        # Long enough for a server that does not wait to have cut it; for one that does it makes no difference.
        time.sleep(1)
        assert server.process.poll() is None
        received = 0
        while received < size and (part := connection.recv(1 << 20)):
            received += len(part)
        assert received == size, "the download was cut"
        assert server.process.wait(30) == 0


def test_a_download_that_does_not_finish_is_cut_at_the_limit(big: Tree, tmp_path: Path) -> None:
    options = ("--shutdown-seconds", "1")
    with running(big.root, tmp_path / "state", *options) as server, slow_download(server.port):
        assert server.stop() == 0
        assert "its time is up" in server.log
        assert "Traceback" not in server.log


def test_a_second_signal_does_not_wait_for_downloads(big: Tree, tmp_path: Path) -> None:
    options = ("--shutdown-seconds", "600")
    with running(big.root, tmp_path / "state", *options) as server, slow_download(server.port):
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(server.port), "no new connection is taken", server.log_path)
        assert server.stop() == 0


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_tls_serves_https_and_its_urls(tree: Tree, tmp_path: Path) -> None:
    """NFR-SEC-001: TLS 1.2 or newer."""
    import ssl

    make_certificate(tmp_path)
    options = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    options += ("--shutdown-seconds", "600")
    with running(tree.root, tmp_path / "state", *options, ready=False) as server:
        assert server.url.startswith("https://")
        trusting = ssl.create_default_context()
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        server.http.connection_pool_kw |= {"ssl_context": trusting, "cert_reqs": "CERT_NONE", "assert_hostname": False}
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a certificate of our own, unverified on purpose
            wait_until(lambda: server.get("/readyz").status == 200, "the server is ready", server.log_path)
            assert server.check()["updates"][0]["url"].startswith(f"{server.url}/")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old version is what is tested
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            old.minimum_version = ssl.TLSVersion.TLSv1
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
            pytest.raises((ssl.SSLError, OSError)),
        ):
            old.wrap_socket(connection)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 20, "it waited for idle clients to agree to the end of their TLS"
