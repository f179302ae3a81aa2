"""The client against real servers on loopback, friendly and hostile (FR-UPD-002 to FR-UPD-004, EH-CLI-001)."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator

import pytest
from support.agent_http import Reply, Request, ScriptedServer, scripted_server
from support.asking import ANSWER, PATIENT, QUICK, answering, asking, dripping_headers, endless, good

from agent.codes import Code
from agent.schedule import DEFAULT_INTERVAL, LONGEST, after_answer
from repo_server.core.wire import StatusRequest


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server(good) as running:
        yield running


def closed_port() -> str:
    """Return the URL of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_check_sends_the_request_with_the_secret_and_reads_the_answer(server: ScriptedServer) -> None:
    """FR-UPD-003, NFR-SRV-010; unknown fields of a newer server do no harm."""
    assert asking(server.url).check().next_check_seconds == 60
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/check")
    assert request.headers["x-commandit-updater-secret"] == "s3cret"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body)["updater_version"] == "1.0.0"


def test_a_base_url_may_have_a_path(server: ScriptedServer) -> None:
    asking(f"{server.url}/updates").check()
    assert server.requests[0].path == "/updates/v1/check"


def test_records_are_reported(server: ScriptedServer) -> None:
    server.script = lambda _, reply: reply.json(b'{"accepted": ["a"], "rejected": []}')
    assert asking(server.url).client.report(StatusRequest("d", ())).accepted == ("a",)
    assert server.requests[0].path == "/v1/status"


def test_the_next_server_is_asked_when_one_is_away(server: ScriptedServer) -> None:
    """NFR-REL-001: base URLs in order, without a pause between them."""
    ask = asking(closed_port(), server.url)
    assert ask.check().catalogue == 1
    assert ask.pauses == []


def test_every_server_away_is_tried_again_with_backoff_then_said(server: ScriptedServer) -> None:
    """EH-CLI-001."""
    ask = asking(closed_port(), rounds=3)
    failure = ask.failure()
    assert failure.code is Code.NETWORK
    assert "cannot connect to 127.0.0.1" in failure.message
    assert ask.pauses == [0.5, 1.0]


def test_a_server_that_comes_back_within_a_cycle_is_enough(server: ScriptedServer) -> None:
    def recovering(request: Request, reply: Reply) -> None:
        if len(server.requests) < 3:
            reply.send(502, b"<html>bad gateway</html>")
        else:
            good(request, reply)

    server.script = recovering
    ask = asking(server.url, rounds=3)
    ask.check()
    assert len(ask.pauses) == 2


def drip(_: Request, reply: Reply) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while not reply.stopping.wait(0.02):
        reply.raw(b" ")


def endless_interim(_: Request, reply: Reply) -> None:
    while not reply.stopping.wait(0.01):
        reply.raw(b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_headers(_: Request, reply: Reply) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\n")
    while not reply.stopping.is_set():
        reply.raw(b"x: y\r\n" * 1000)


def endless_header(_: Request, reply: Reply) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\nx: ")
    while not reply.stopping.is_set():
        reply.raw(b"y" * 10_000)


def silent(_: Request, reply: Reply) -> None:
    reply.stopping.wait(30)


def cut(_: Request, reply: Reply) -> None:
    reply.send(200, ANSWER[:-10], claim=len(ANSWER))
    reply.hang_up()


def nothing(_: Request, reply: Reply) -> None:
    reply.hang_up()


def gibberish(_: Request, reply: Reply) -> None:
    reply.raw(b"SSH-2.0-x\r\n")
    reply.hang_up()


HOSTILE: dict[str, tuple[Callable[[Request, Reply], None], Code]] = {
    "never answers": (silent, Code.TIMEOUT),
    "drips its body": (drip, Code.TIMEOUT),
    "drips its headers": (dripping_headers, Code.TIMEOUT),
    "never stops to announce an answer": (endless_interim, Code.TIMEOUT),
    "never ends": (endless, Code.BAD_RESPONSE),
    "breaks off": (cut, Code.NETWORK),
    "hangs up": (nothing, Code.NETWORK),
    "does not speak HTTP": (gibberish, Code.NETWORK),
    "sends a page": (answering(200, b"<!DOCTYPE html><p>log in"), Code.CAPTIVE_PORTAL),
    "sends a page as JSON": (answering(200, b" \n<html>", content_type="application/json"), Code.CAPTIVE_PORTAL),
    "asks to log in": (answering(511, b"<html>"), Code.CAPTIVE_PORTAL),
    "sends no JSON": (answering(200, b"hello"), Code.BAD_RESPONSE),
    "sends nothing": (answering(200, b""), Code.BAD_RESPONSE),
    "sends other JSON": (answering(200, b"[1]"), Code.BAD_RESPONSE),
    "sends wrong types": (answering(200, ANSWER.replace(b'"catalogue": 1', b'"catalogue": "x"')), Code.BAD_RESPONSE),
    "sends more than it says": (lambda _, reply: reply.send(200, ANSWER, claim=20), Code.BAD_RESPONSE),
    "sends headers without end": (endless_headers, Code.NETWORK),
    "sends a header without end": (endless_header, Code.NETWORK),
    "sends a bomb": (answering(200, gzip.compress(bytes(50_000_000)), content_encoding="gzip"), Code.BAD_RESPONSE),
    "sends deep JSON": (answering(200, b"[" * 500_000), Code.BAD_RESPONSE),
    "sends no UTF-8": (answering(200, ANSWER.replace(b"default", b"\xff")), Code.BAD_RESPONSE),
    "sends compressed": (answering(200, b"\x1f\x8b", content_encoding="gzip"), Code.BAD_RESPONSE),
    "has no content": (answering(204, b""), Code.HTTP_STATUS),
    "does not know the path": (answering(404, b"<html>"), Code.HTTP_STATUS),
    "fails": (answering(500, b""), Code.HTTP_STATUS),
    "does not know the secret": (answering(401, b"{}"), Code.UNAUTHORIZED),
    "forbids": (answering(403, b"{}"), Code.UNAUTHORIZED),
    "limits": (answering(429, b"{}", retry_after="120"), Code.RATE_LIMITED),
    "redirects elsewhere": (answering(307, b"", location="http://192.0.2.1/"), Code.REDIRECT_REFUSED),
    "redirects to another port": (answering(307, b"", location="http://127.0.0.1:1/"), Code.REDIRECT_REFUSED),
    "redirects to another host with our name before it": (
        lambda request, reply: reply.send(307, location=f"http://{request.headers['host']}@192.0.2.1/"),
        Code.REDIRECT_REFUSED,
    ),
    "redirects to another host without a scheme": (answering(307, b"", location="//192.0.2.1/"), Code.REDIRECT_REFUSED),
    "redirects to a file": (answering(307, b"", location="file:///etc/passwd"), Code.REDIRECT_REFUSED),
    "redirects to garbage": (answering(307, b"", location="http://[::1"), Code.REDIRECT_REFUSED),
    "redirects a POST to a GET": (answering(302, b"", location="/other"), Code.REDIRECT_REFUSED),
    "redirects for ever": (answering(307, b"", location="/v1/check"), Code.REDIRECT_REFUSED),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_code_is_given_within_bounds_when_the_server(server: ScriptedServer, what: str) -> None:
    """EH-CLI-001: no answer of a server hangs the agent, fills its memory, or passes for an answer."""
    server.script, code = HOSTILE[what]
    failure = asking(server.url, timeouts=QUICK if code is Code.TIMEOUT else PATIENT).failure()
    assert failure.code is code, failure.message
    assert len(failure.message) < 1000


JUNK = ["0", "-5", "1.5", "1e400", "1" * 5000, '"60"', "true", "null", "[]", "{}"]


@pytest.mark.parametrize("junk", [*JUNK, None], ids=lambda junk: str(junk)[:9])
def test_junk_for_the_next_check_spoils_no_answer(server: ScriptedServer, junk: str | None) -> None:
    """FR-UPD-001: it is advice; whatever it says, the next check is within 30 s and 24 h."""
    body = ANSWER.replace(
        b'"next_check_seconds": 60,', b"" if junk is None else f'"next_check_seconds": {junk},'.encode()
    )
    server.script = answering(200, body)
    answer = asking(server.url).check()
    assert answer.catalogue == 1
    wanted = LONGEST if answer.next_check_seconds > LONGEST else DEFAULT_INTERVAL
    assert after_answer(DEFAULT_INTERVAL, answer.next_check_seconds, lambda: 0.5) == wanted


SICK: dict[str, Callable[[Request, Reply], None]] = {
    "hangs": silent,
    "fails": answering(500, b""),
    "is overloaded": answering(503, b"{}", retry_after="3600"),
    "does not know the secret": answering(401, b"{}"),
    "sends a page": answering(200, b"<html>", content_type="text/html"),
    "redirects elsewhere": answering(307, b"", location="http://192.0.2.1/"),
    "breaks off": cut,
}


@pytest.mark.parametrize("what", SICK)
def test_the_next_server_answers_for_one_that(server: ScriptedServer, what: str) -> None:
    """NFR-REL-001: base URLs in order, without a pause between them."""
    with scripted_server(SICK[what]) as sick:
        ask = asking(sick.url, server.url, timeouts=QUICK if what == "hangs" else PATIENT)
        assert ask.check().catalogue == 1
        assert len(sick.requests) == 1
    assert ask.pauses == []


def test_what_a_server_says_of_its_error_is_shown_but_cannot_draw_on_the_terminal(server: ScriptedServer) -> None:
    """EH-SRV-001."""
    body = json.dumps({"error_code": "invalid_channel", "message": "no \x1b[31m" + "x" * 5000}).encode()
    server.script = answering(400, body)
    failure = asking(server.url).failure()
    assert "400 Bad Request: invalid_channel: no " in failure.message
    assert "\x1b" not in failure.message
    assert len(failure.message) < 1000


@pytest.mark.parametrize(("status", "tries"), [(401, 1), (400, 1), (404, 1), (500, 3), (503, 3)])
def test_only_what_may_pass_is_tried_again_in_a_cycle(server: ScriptedServer, status: int, tries: int) -> None:
    server.script = answering(status, b"{}")
    asking(server.url, rounds=3).failure()
    assert len(server.requests) == tries


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_names_its_time_is_not_asked_before_it(server: ScriptedServer, status: int) -> None:
    """Design §5: ``Retry-After`` is honoured; the daemon gets it with the failure."""
    server.script = answering(status, b"{}", retry_after="120")
    failure = asking(server.url, rounds=3).failure()
    assert len(server.requests) == 1
    assert failure.retry_after_seconds == 120


def test_a_date_to_come_back_at_is_meant_by_the_servers_clock(server: ScriptedServer) -> None:
    """NFR-REL-001: this machine's clock, which is years behind, is asked only if the server does not say the time."""
    date, later = "Fri, 01 Nov 2030 12:00:00 GMT", "Fri, 01 Nov 2030 12:10:00 GMT"
    server.script = answering(503, b"{}", retry_after=later, date=date)
    assert asking(server.url).failure().retry_after_seconds == 600
    server.script = answering(503, b"{}", retry_after="Sat, 21 Nov 2026 17:05:00 GMT")
    assert asking(server.url).failure().retry_after_seconds == 300
