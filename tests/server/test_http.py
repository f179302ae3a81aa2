"""Bodies, methods, paths and heads that a server on the network gets to see (EH-SRV-001)."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time

import pytest
from support.server import RunningServer, check_body
from support.serving import SERVICE

CHECK = "/v1/check"


def raw(server: RunningServer, data: bytes, *, end: bool = False) -> bytes:
    """Send bytes as they are and read until the server closes or has answered."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(65536)
            if not part:
                break
            answer += part
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"  \n", 400, "empty_body"),
        (b"{", 400, "malformed_json"),
        (b"not json", 400, "malformed_json"),
        (b"\xff\xfe\x00", 400, "malformed_json"),
        (b'{"os": "\xff", "device_id": "\xff"}', 400, "malformed_json"),
        (b'{"os": "\\ud800"}', 400, "malformed_json"),
        (b"[" * 60_000, 422, "invalid_request"),
        (b'{"unknown":' + b"[" * 60_000, 400, "malformed_json"),
        (b'{"attributes":' + b'{"a":' * 10_000, 400, "malformed_json"),
        (b"null", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b'"text"', 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
    ],
    ids=lambda value: repr(value)[:24],
)
@pytest.mark.parametrize("path", [CHECK, "/v1/status"])
def test_a_body_that_is_no_request_is_refused(
    server: RunningServer, path: str, body: bytes, status: int, code: str
) -> None:
    response = server.post(path, body)
    assert (response.status, response.json()["error_code"]) == (status, code)
    assert response.headers["content-type"] == "application/json"


def test_ten_thousand_components_are_refused_and_cost_nothing(server: RunningServer) -> None:
    """Over the byte limit of a check, so it is not even decoded."""
    body = check_body(components=[{"name": f"c{n}", "version": "1.0.0"} for n in range(10_000)])
    response = server.post(CHECK, body)
    assert (response.status, response.json()["error_code"]) == (413, "body_too_large")
    assert server.check()


def test_a_body_that_declares_too_much_is_refused_before_it_is_sent(server: RunningServer) -> None:
    head = b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000000\r\n\r\n"
    assert status_of(raw(server, head)) == 413


@pytest.mark.parametrize(("path", "limit"), [(CHECK, 64 * 1024), ("/v1/status", 1024 * 1024)])
def test_a_chunked_body_is_refused_at_its_limit(server: RunningServer, path: str, limit: int) -> None:
    """The client sees the answer, not a reset, although it is still sending."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    chunks = iter([b" " * 65_536] * (limit // 65_536 + 60))
    connection.request("POST", path, chunks, {"content-type": "application/json"}, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.load(response)["error_code"]) == (413, "body_too_large")
    connection.close()


def test_a_chunked_body_within_the_limit_is_taken(server: RunningServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    data = json.dumps(check_body()).encode()
    pieces = [data[index : index + 7] for index in range(0, len(data), 7)]
    connection.request("POST", CHECK, iter(pieces), {"content-type": "application/json"}, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"])
def test_a_body_that_says_it_is_something_else_is_refused(server: RunningServer, kind: str) -> None:
    response = server.post(CHECK, check_body(), {"content-type": kind})
    assert (response.status, response.json()["error_code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"])
def test_json_may_be_called_by_all_its_names(server: RunningServer, kind: str) -> None:
    assert server.post(CHECK, check_body(), {"content-type": kind}).status == 200


def test_a_body_without_a_content_type_is_taken_as_json(server: RunningServer) -> None:
    assert server.request("POST", CHECK, body=json.dumps(check_body()).encode()).status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHECK, "POST"),
        ("PUT", CHECK, "POST"),
        ("GET", "/v1/status", "POST"),
        ("POST", f"/v1/packages/{SERVICE}", "GET, HEAD"),
        ("DELETE", f"/tree/{SERVICE}", "GET, HEAD"),
        ("PUT", "/metadata/1.root.json", "GET, HEAD"),
        ("POST", "/v1/problems", "GET, HEAD"),
        ("POST", "/v1/packages", "GET, HEAD"),
        ("PATCH", "/v1/devices", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
    ],
)
def test_another_method_is_405_and_says_which_are_allowed(
    server: RunningServer, method: str, path: str, allowed: str
) -> None:
    response = server.request(method, path)
    assert (response.status, response.json()["error_code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/check/", "/v2/check", "/v1/nothing", "/favicon.ico", "/V1/CHECK", "//", "/v1/devices/"]
)
def test_another_path_is_404(server: RunningServer, path: str) -> None:
    response = server.get(path)
    assert (response.status, response.json()["error_code"]) == (404, "not_found")


@pytest.mark.parametrize("path", [CHECK, "/v1/packages", "/v1/devices", f"/v1/packages/{SERVICE}", "/healthz"])
def test_no_page_of_another_origin_may_read_an_answer(server: RunningServer, path: str) -> None:
    """There is no CORS: nothing is allowed, and a preflight is a method that nobody has."""
    origin = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    preflight = server.request("OPTIONS", path, headers=origin)
    assert (preflight.status, preflight.json()["error_code"]) == (405, "method_not_allowed")
    for response in (preflight, server.get(path, origin), server.post(path, check_body(), origin)):
        assert [name for name in response.headers if name.lower().startswith("access-control-")] == []


def test_healthz_says_that_it_lives(server: RunningServer) -> None:
    assert server.get("/healthz").json() == {"status": "ok"}


def test_readyz_says_what_is_served(server: RunningServer) -> None:
    answer = server.ready()
    assert answer["ready"] is True
    assert (answer["scan"]["state"], answer["scan"]["releases"]) == ("ready", 5)
    assert answer["database"]["state"] == "ready"


def test_one_connection_carries_many_requests(server: RunningServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    data = json.dumps(check_body())
    connection.connect()
    first = connection.sock
    for body in (data, "", data, "nonsense", data):
        connection.request("POST", CHECK, body, {"content-type": "application/json"})
        connection.getresponse().read()
    assert connection.sock is first
    connection.close()


def test_requests_in_a_pipeline_are_answered_in_order(server: RunningServer) -> None:
    one = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(one + one + last)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 200, 404]


def test_a_head_without_end_is_refused(server: RunningServer) -> None:
    """Memory is not a client's to fill."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        try:
            for number in range(1000):
                connection.sendall(b"x-%d: " % number + b"y" * 4096 + b"\r\n")
            answer = connection.recv(65536)
        except OSError:
            # It hung up while we were still sending; what it said before may be lost with that.
            return
    assert status_of(answer) == 431


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
    ],
    ids=range(8),
)
def test_what_is_not_http_ends_the_connection_and_nothing_else(server: RunningServer, data: bytes) -> None:
    answer = raw(server, data, end=True)
    assert answer == b"" or status_of(answer) == 400
    assert server.get("/healthz").status == 200


def test_a_host_that_stands_twice_is_refused(server: RunningServer) -> None:
    """Two Hosts, two answers to the question what was asked: refused rather than guessed."""
    head = b"POST /v1/check HTTP/1.1\r\nhost: a\r\nhost: b\r\ncontent-length: 2\r\n\r\n{}"
    assert status_of(raw(server, head)) == 400


@pytest.mark.parametrize(
    ("hosts", "code"), [(b"", "invalid_host"), (b"host: a\r\nhost: b\r\n", "duplicate_header")], ids=["none", "two"]
)
@pytest.mark.parametrize("line", [b"GET /healthz", b"POST /v1/check", b"GET /nothing"], ids=["get", "check", "unknown"])
def test_every_request_needs_one_host(server: RunningServer, line: bytes, hosts: bytes, code: str) -> None:
    """RFC 9112, 3.2: the server MUST answer 400."""
    head = line + b" HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n" + hosts + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert status_of(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error_code"] == code


def test_before_http_1_1_there_need_be_no_host(server: RunningServer) -> None:
    assert status_of(raw(server, b"GET /healthz HTTP/1.0\r\n\r\n", end=True)) == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_wish_for_another_protocol_is_passed_over(server: RunningServer, chunked: bool) -> None:
    """RFC 9110, 7.8; ``curl --http2`` wishes so with every request, and its body counts none the less."""
    body = json.dumps(check_body()).encode()
    framing, sent = b"content-length: %d" % len(body), body
    if chunked:
        framing, sent = b"transfer-encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    wish = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    check = b"POST /v1/check HTTP/1.1\r\nhost: x\r\n" + wish + framing + b"\r\n\r\n" + sent
    last = b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade\r\nupgrade: websocket\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(check + check + last)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 200, 404]


@pytest.mark.parametrize(("size", "status"), [(32_000, 200), (33_000, 431)])
def test_a_head_is_measured_also_when_it_arrives_at_once(server: RunningServer, size: int, status: int) -> None:
    head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: " + b"y" * size + b"\r\n\r\n"
    assert status_of(raw(server, head, end=True)) == status


@pytest.mark.parametrize(
    ("method", "status"), [("OPTIONS", b"204 No Content"), ("GET", b"400 Bad Request"), ("POST", b"400 Bad Request")]
)
def test_only_options_asks_for_no_resource(server: RunningServer, method: str, status: bytes) -> None:
    """RFC 9110, 9.3.7."""
    answer = raw(server, f"{method} * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert (b"allow: GET, HEAD, POST" in answer) == (method == "OPTIONS")


def test_a_client_that_hangs_up_in_its_body_harms_nobody(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/check HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        time.sleep(0.05)
    assert server.check()
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "malformed_request"),
        (
            b"POST /v1/check HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "malformed_request",
        ),
        (
            b"POST /v1/check HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            "unknown_coding",
        ),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 10_000, 431, "head_too_large"),
    ],
    ids=["nul", "tls", "two lengths", "gzip", "no end"],
)
def test_what_is_no_http_is_answered_like_every_other_error(
    server: RunningServer, head: bytes, status: int, code: str
) -> None:
    """EH-SRV-001: one form of errors, also from the layer below the routes."""
    answer = raw(server, head)
    assert status_of(answer) == status
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error_code"] == code
    assert "not HTTP" not in server.log, "anybody could fill it"


def test_a_compressed_body_is_refused_by_its_name(server: RunningServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", CHECK, gzip.compress(b"{}"), {"Content-Encoding": "gzip"})
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    assert (response.status, found["error_code"]) == (415, "unsupported_media_type")
    assert "gzip" in found["message"]
