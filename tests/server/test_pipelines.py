"""Several requests on one connection, and how it ends: answers come in order, whole, each once (RFC 9112, 9.3.2)."""

from __future__ import annotations

import http.client
import io
import json
import resource
import socket
import threading
from pathlib import Path

import pytest
from support.server import RunningServer, check_body, wait_until
from support.serving import CONTENT, SERVICE

DOWNLOAD = f"GET /v1/packages/{SERVICE} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
MARK = b'{"status":"ok"}'
CHUNKED = b"POST /v1/check HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def check() -> bytes:
    body = json.dumps(check_body()).encode()
    return b"POST /v1/check HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def resident(server: RunningServer) -> int:
    """Return how many bytes of memory the server holds."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


class Recorded(io.BytesIO):
    """What came, as ``http.client`` wants to read it."""

    def makefile(self, _mode: str) -> Recorded:
        return self

    def flush(self) -> None: ...

    def close(self) -> None: ...


def exchange(server: RunningServer, *pieces: bytes, half: bool = False) -> list[tuple[int, bytes]]:
    """Send; return status and body of every answer until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if half:
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            came = Recorded(stream.read())
    answers = []
    while came.tell() < len(came.getvalue()):
        response = http.client.HTTPResponse(came)  # type: ignore[arg-type]  # it reads from makefile() only
        response.begin()
        answers.append((response.status, response.read()))
    return answers


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (b"\0 is no HTTP", 400),
        (b"\0 is no HTTP" + b"\0" * 40_000, 400),
        (CHUNKED + b"1\r\n{\r\nzz\r\n", 400),
        (b"POST /v1/check HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    ],
    ids=["no-http", "long-no-http", "bad-chunk", "unknown-coding", "long-head"],
)
@pytest.mark.parametrize("half", [False, True], ids=["", "no-more"])
@pytest.mark.parametrize("together", [True, False], ids=["together", "pieces"])
def test_what_cannot_be_understood_is_answered_after_what_was_asked_before(
    server: RunningServer, last: bytes, status: int, together: bool, half: bool
) -> None:
    pieces = [DOWNLOAD, HEALTH, check(), last]
    answers = exchange(server, *([b"".join(pieces)] if together else pieces), half=half)
    assert [answer[0] for answer in answers] == [200, 200, 200, status]
    assert answers[0][1] == CONTENT
    assert answers[1][1] == MARK


def test_however_many_requests_wait_each_is_answered_and_they_take_no_memory(server: RunningServer) -> None:
    memory = resident(server)
    asked = 20_000
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        sender = threading.Thread(target=connection.sendall, args=(HEALTH * asked,))
        sender.start()
        most, seen, tail = memory, 0, b""
        while seen < asked:
            came = tail + connection.recv(4096)
            assert len(came) > len(tail)
            seen += came.count(MARK)
            tail = came[1 - len(MARK) :]
            most = max(most, resident(server))
        sender.join()
    assert most - memory < 16_000_000


@pytest.mark.parametrize("asked", [DOWNLOAD, DOWNLOAD + check() + HEALTH], ids=["one", "several"])
def test_a_client_that_says_it_asks_no_more_gets_its_answers(server: RunningServer, asked: bytes) -> None:
    answers = exchange(server, asked, half=True)
    assert [answer[0] for answer in answers] == [200] * asked.count(b"HTTP/1.1")
    assert answers[0][1] == CONTENT


def test_a_client_that_hangs_up_while_it_is_answered_is_no_failure(server: RunningServer) -> None:
    def downloads() -> int:
        return sum('"GET"' in line and SERVICE in line for line in audit.read_text().splitlines())

    audit = server.state / "audit.log"
    before, logged = downloads(), len(server.log)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(DOWNLOAD * 8)
    wait_until(lambda: downloads() > before, "the download is in the audit")
    assert "Traceback" not in server.log[logged:]


def test_empty_lines_between_requests_add_up_to_no_head(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for _ in range(6):
            for piece in (b"\r\n" * 4000, check()):
                connection.sendall(piece)
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert response.status == 200
            response.read()
