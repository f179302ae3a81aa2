"""Slow and idle clients do not hold the server."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.figures import figure
from support.server import RunningServer, check_body, running, wait_until
from support.serving import SERVICE
from support.trees import Tree

IDLE = 10_000


@contextlib.contextmanager
def many(server: RunningServer, count: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    """Hold connections that have sent so much."""
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            if data:
                connection.sendall(data)
            held.append(connection)
        yield held


def closed(connection: socket.socket) -> bool:
    connection.settimeout(30)
    try:
        return connection.recv(65536) == b""
    except ConnectionError:
        return True


def ended_after(connection: socket.socket) -> bool:
    """Whether the server hangs up, with or without a word."""
    connection.settimeout(30)
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


@pytest.fixture
def _descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * IDLE:
        pytest.skip(f"this account may have {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_descriptors")
def test_ten_thousand_idle_connections_cost_a_little_memory_and_nothing_else(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", "--public-metrics") as server:
        memory = figure_of_process(server, "process_resident_memory_bytes")
        with many(server, IDLE):
            wait_until(lambda: figure(server, "connections") >= IDLE, "all are accepted", server.log_path)
            assert server.offered() == {"service": "1.2.3"}
            assert len(server.get(f"/v1/packages/{SERVICE}").data) > 0
            used = figure_of_process(server, "process_resident_memory_bytes") - memory
            assert used < IDLE * 32 * 1024
        wait_until(lambda: figure(server, "connections") < 10, "all are gone", server.log_path)


def figure_of_process(server: RunningServer, name: str) -> float:
    from support.figures import figures

    return figures(server)[name, ()]


@pytest.mark.parametrize(
    "data", [b"", b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-le"], ids=["idle", "half a head"]
)
def test_at_the_limit_who_rests_longest_makes_room_for_who_asks(tree: Tree, tmp_path: Path, data: bytes) -> None:
    with running(tree.root, tmp_path / "state", "--max-connections", "50", "--public-metrics") as server:
        server.http.clear()
        with many(server, 200, data) as held:
            wait_until(lambda: closed(held[0]), "the first has made room", server.log_path)
            for _ in range(20):
                server.http.clear()
                assert server.offered() == {"service": "1.2.3"}
            assert figure(server, "connections") <= 50
            assert figure(server, "connections_evicted_total") >= 150
            assert figure(server, "connections_refused_total") == 0


def test_a_request_that_arrives_a_byte_at_a_time_is_given_up(tree: Tree, tmp_path: Path) -> None:
    """Sending something now and then buys no time: the whole request has its limit."""
    with (
        running(tree.root, tmp_path / "state", "--request-seconds", "2") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as in_head,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as in_body,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as stopped,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as silent,
    ):
        stopped.sendall(b"POST /v1/check HTTP/1.1\r\nhost: x\r\n")
        # The second request of a connection, and the first of one.
        in_head.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        first = b""
        while not first.endswith(b"}"):
            first += in_head.recv(65536)
        in_head.sendall(b"GET /healthz HTTP/1.1\r\nx-slow: ")
        in_body.sendall(b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n")
        started = time.monotonic()
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.1):
                for connection in (in_head, in_body):
                    with contextlib.suppress(OSError):
                        connection.sendall(b"G")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert b" 408 " in stopped.recv(65536)
            assert [ended_after(connection) for connection in (in_head, in_body, stopped, silent)] == [True] * 4
        finally:
            ended.set()
            dripping.join()
        assert time.monotonic() - started > 1.5
        assert server.offered() == {"service": "1.2.3"}


def test_reports_that_do_not_arrive_leave_room_for_everybody_else(tree: Tree, tmp_path: Path) -> None:
    """Load is shed before the database, by kind of request and by address; checks never wait for reports."""

    def head(address: str) -> bytes:
        return (
            f"POST /v1/status HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {address}\r\ncontent-length: 100\r\n\r\n{{"
        ).encode()

    with (
        running(tree.root, tmp_path / "state", "--trusted-proxy", "127.0.0.1", "--public-metrics") as server,
        contextlib.ExitStack() as stack,
    ):
        for number in range(4):
            stack.enter_context(many(server, 64, head(f"203.0.113.{number}")))
            wait_until(
                lambda number=number: figure(server, "running_requests", kind="report") == 64 * (number + 1),
                "they hang",
            )
            [over] = stack.enter_context(many(server, 1, head(f"203.0.113.{number}")))
            answer = over.recv(65536)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"retry-after: " in answer
        [elsewhere] = stack.enter_context(many(server, 1, head("203.0.113.99")))
        assert elsewhere.recv(65536).startswith(b"HTTP/1.1 503"), "256 of them are enough"
        assert server.offered() == {"service": "1.2.3"}
        assert len(server.get(f"/v1/packages/{SERVICE}").data) > 0
        assert figure(server, "shed_requests_total", kind="report") == 5


def test_a_client_that_asks_on_and_on_and_reads_nothing_costs_no_memory(tree: Tree, tmp_path: Path) -> None:
    """The short way writes at once; when the client's window is full it takes the long way, which stops reading."""
    import json

    body = json.dumps(check_body()).encode()
    ask = b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with (
        running(tree.root, tmp_path / "state", "--public-metrics") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
    ):
        memory = figure_of_process(server, "process_resident_memory_bytes")
        connection.settimeout(2)
        sent = sent_until_blocked(connection, ask * 100)
        assert figure_of_process(server, "process_resident_memory_bytes") - memory < 30_000_000
        assert server.offered() == {"service": "1.2.3"}
        connection.settimeout(30)
        mark = b'"catalogue":'
        tail, answers = b"", 0
        while answers < sent // len(ask):
            part = tail + connection.recv(1 << 20)
            answers += part.count(mark)
            tail = part[1 - len(mark) :]


def sent_until_blocked(connection: socket.socket, data: bytes) -> int:
    """Send again and again until nothing more is taken; return how many bytes were."""
    sent = 0
    for _ in range(2000):
        try:
            sent += connection.send(data)
        except TimeoutError:
            return sent
    raise AssertionError("the server took everything")


def test_a_body_that_comes_in_pieces_is_answered_on_the_same_connection(server: RunningServer) -> None:
    """What the short way does when a request does not arrive in one read."""
    import json

    body = json.dumps(check_body()).encode()
    head = b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            for piece in (head[:20], head[20:] + body[:10], body[10:]):
                connection.sendall(piece)
                time.sleep(0.05)  # so that each piece is a read of its own
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        both = head + body + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" + head + body
        connection.sendall(both)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 3 or not answers.endswith(b"}"):
            answers += connection.recv(65536)
        assert answers.find(b'"updates"') < answers.find(b'"ok"') < answers.rfind(b'"updates"')
        connection.sendall(head.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + body)
        last = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b"connection: close" in last
