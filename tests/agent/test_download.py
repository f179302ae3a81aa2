"""Downloads: resumed, bounded, verified, from the next source if one is bad (FR-UPD-005, FR-UPD-006, NFR-PER-002)."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from support.agent_http import Reply, Request, ScriptedServer
from support.downloads import (
    CONTENT,
    NAME,
    PATH,
    SHA256,
    UPDATE,
    Script,
    check_fetched,
    downloader,
    drip,
    failure,
    file_server,
    names,
    offer_with,
)

from agent.codes import Code
from agent.errors import LocalFailure, NetworkFailure, TrustRefused


def test_a_file_is_fetched_once_and_used_again(server: ScriptedServer, into: Path) -> None:
    """FR-UPD-005; the request carries the secret to the server."""
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    (request,) = server.requests
    assert request.path == PATH
    assert request.headers["x-commandit-updater-secret"] == "s3cret"
    assert request.headers["accept-encoding"] == "identity"


def test_a_whole_file_that_rotted_is_fetched_again(server: ScriptedServer, into: Path) -> None:
    (into / SHA256).write_bytes(CONTENT[:-1] + b"x")
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    assert len(server.requests) == 1


def endless(_: Request, reply: Reply) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while not reply.stopping.is_set():
        reply.raw(b"10000\r\n" + CONTENT[:0x10000] + b"\r\n")


def one_byte_each_time(request: Request, reply: Reply) -> None:
    start = int((request.headers.get("range") or "bytes=0-")[6:-1])
    span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    reply.send(206 if start else 200, CONTENT[start : start + 1], claim=len(CONTENT) - start, content_range=span)
    reply.hang_up()


HOSTILE: dict[str, tuple[Script, Code]] = {
    "never ends": (endless, Code.SIZE_MISMATCH),
    "has a longer file": (file_server(CONTENT + b"x"), Code.SIZE_MISMATCH),
    "has a shorter file": (file_server(CONTENT[:-1]), Code.SIZE_MISMATCH),
    "has an empty file": (file_server(b""), Code.SIZE_MISMATCH),
    "sends a page": (lambda _, reply: reply.send(200, b"<html>", content_type="text/html"), Code.CAPTIVE_PORTAL),
    "sends a page that says nothing of itself": (lambda _, reply: reply.send(200, b"\n<!doctype"), Code.CAPTIVE_PORTAL),
    "sends a page as a package": (
        lambda _, reply: reply.send(200, b"<html>", content_type="application/gzip"),
        Code.CAPTIVE_PORTAL,
    ),
    "sends compressed": (
        lambda _, reply: reply.send(200, gzip.compress(CONTENT), content_encoding="gzip"),
        Code.SIZE_MISMATCH,
    ),
    "has no such file": (lambda _, reply: reply.send(404), Code.NO_SOURCE),
    "does not know the secret": (lambda _, reply: reply.send(401), Code.UNAUTHORIZED),
    "fails": (lambda _, reply: reply.send(500), Code.HTTP_STATUS),
    "limits": (lambda _, reply: reply.send(429, retry_after="60"), Code.RATE_LIMITED),
    "hangs up": (lambda _, reply: reply.hang_up(), Code.NETWORK),
    "drips": (drip, Code.TIMEOUT),
    "gives one byte and hangs up": (one_byte_each_time, Code.TIMEOUT),
    "redirects elsewhere": (lambda _, reply: reply.send(302, location="http://192.0.2.1/x"), Code.REDIRECT_REFUSED),
    "answers another range": (
        lambda _, reply: reply.send(206, CONTENT, content_range="bytes 5-9/10"),
        Code.BAD_RESPONSE,
    ),
}

IMPATIENT = {"window_seconds": 0.3, "slowest_bytes_per_second": 20_000.0}
"""A hostile server cannot be so fast, and no machine that runs tests is so slow."""


@pytest.mark.parametrize("what", HOSTILE)
def test_a_code_is_given_within_bounds_when_the_server(server: ScriptedServer, into: Path, what: str) -> None:
    """EH-CLI-001, EH-CLI-002: never more bytes on the disk than announced, and never for ever."""
    server.script, code = HOSTILE[what]
    made = downloader(server.url, limits=IMPATIENT if code is Code.TIMEOUT else {})
    error = failure(made, into)
    assert error.code is code, error.message
    assert sum(path.stat().st_size for path in into.iterdir()) <= len(CONTENT) + 200
    if isinstance(error, TrustRefused):
        assert names(into) == set()
    if what == "limits":
        assert isinstance(error, NetworkFailure)
        assert error.retry_after_seconds == 60


@pytest.mark.parametrize("what", HOSTILE)
def test_a_good_mirror_makes_up_for_a_server_that(
    server: ScriptedServer, mirror: ScriptedServer, into: Path, what: str
) -> None:
    """Promise 5: any copy is a mirror; what the bad server sent spoils nothing, and the secret is not sent there."""
    server.script, code = HOSTILE[what]
    limits = IMPATIENT if code is Code.TIMEOUT else {}
    made = downloader(server.url, mirrors=(f"{mirror.url}/tree",), limits=limits)
    check_fetched(made.fetch(UPDATE, into), into)
    assert [request.path for request in mirror.requests] == [f"/tree/{NAME}"]
    assert "x-commandit-updater-secret" not in mirror.requests[-1].headers


@pytest.mark.parametrize("header", ["300", "Sat, 21 Nov 2026 17:05:00 GMT"])
def test_when_a_source_wants_to_be_asked_again_is_remembered(server: ScriptedServer, into: Path, header: str) -> None:
    """A date is meant by the server's clock, not by this machine's."""
    server.script = lambda _, reply: reply.send(429, retry_after=header, date="Sat, 21 Nov 2026 17:00:00 GMT")
    made = downloader(server.url)
    failure(made, into)
    assert made.retry_after_seconds == 300


def test_the_servers_own_name_for_itself_is_used_only_if_it_is_configured(server: ScriptedServer, into: Path) -> None:
    """A server behind a proxy says http://internal:8470/…; its path is right all the same."""
    for url in (f"{server.url}{PATH}", f"http://internal.example:8470{PATH}", PATH):
        (into / SHA256).unlink(missing_ok=True)
        check_fetched(downloader(server.url).fetch(offer_with(url=url), into), into)
        assert server.requests[-1].path == PATH


def test_a_url_that_is_none_leaves_the_mirrors(mirror: ScriptedServer, server: ScriptedServer, into: Path) -> None:
    update = offer_with(url="http://[bad")
    assert failure(downloader(server.url), into, update).code is Code.NO_SOURCE
    check_fetched(downloader(server.url, mirrors=(mirror.url,)).fetch(update, into), into)


def test_an_offer_without_a_source_says_so(into: Path, server: ScriptedServer) -> None:
    error = failure(downloader(server.url), into, offer_with(url="https://elsewhere.example"))
    assert error.code is Code.NO_SOURCE


@pytest.mark.parametrize(
    "changes",
    [
        {"hash_sha256": "../../etc/passwd"},
        {"hash_sha256": "A" * 64},
        {"hash_sha256": f"{'a' * 64}\n"},
        {"size": 0},
        {"size": -1},
        {"size": 2**63},
        {"path": "../x"},
        {"path": "/etc/passwd"},
        {"path": "a//b"},
        {"path": "a\\b"},
        {"path": ""},
    ],
    ids=str,
)
def test_a_malformed_offer_touches_nothing(server: ScriptedServer, into: Path, changes: dict[str, Any]) -> None:
    server.script = lambda _, reply: reply.send(404)
    error = failure(downloader(server.url, mirrors=(server.url,)), into, offer_with(**changes))
    assert error.code is Code.OFFER_INVALID
    assert names(into) == set()


def test_a_download_that_cannot_fit_is_not_begun(server: ScriptedServer, into: Path) -> None:
    """FR-UPD-008: the space for what is missing, and some to spare."""
    made = downloader(server.url, free_bytes=lambda _: len(CONTENT) + 99, limits={"spare_bytes": 100})
    error = failure(made, into)
    assert isinstance(error, LocalFailure)
    assert error.code is Code.DISK_FULL
    assert server.requests == []
    (into / f"{SHA256}.part").write_bytes(CONTENT[:1])
    check_fetched(made.fetch(UPDATE, into), into)
