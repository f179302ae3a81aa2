"""Downloads: resumed, bounded, verified, from the next source if one is bad (FR-UPD-005, FR-UPD-006, NFR-PER-002)."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent_http import Reply, Request, ScriptedServer, scripted_server
from support.server import running
from support.trees import Tree

from agent.codes import Code
from agent.download import Downloader, DownloadLimits
from agent.errors import AgentError, LocalFailure, NetworkFailure, TrustRefused
from agent.http import Timeouts, Transport
from repo_server.core.wire import Action, Update

CONTENT = os.urandom(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "service-linux-amd64-1.2.3.tar.gz"
PATH = f"/v1/packages/{NAME}"
UPDATE = Update("service", "1.2.3", PATH, SHA256, "", "", len(CONTENT), (), Action.UPDATE, (), NAME)
HALF = len(CONTENT) // 2
Script = Callable[[Request, Reply], None]


def file_server(content: bytes = CONTENT, etag: str = f'"{SHA256}"') -> Script:
    """Answer as a good file server does: with ranges, and with the whole file when the entity is another one."""

    def answer(request: Request, reply: Reply) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if match is None or request.headers.get("if-range", etag) != etag:
            reply.send(200, content, etag=etag)
            return
        start = int(match[1])
        if start >= len(content):
            reply.send(416, content_range=f"bytes */{len(content)}")
            return
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        reply.send(206, content[start:], etag=etag, content_range=span)

    return answer


def breaking_off(at: int = HALF, etag: str = f'"{SHA256}"', content: bytes = CONTENT) -> Script:
    """Announce everything and hang up in the middle."""

    def answer(_: Request, reply: Reply) -> None:
        reply.send(200, content[:at], claim=len(content), etag=etag)
        reply.hang_up()

    return answer


def in_turn(*scripts: Script) -> Script:
    """Answer each request with the next script, the last one for ever."""
    left = list(scripts)

    def answer(request: Request, reply: Reply) -> None:
        script = left.pop(0) if len(left) > 1 else left[0]
        script(request, reply)

    return answer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server(file_server()) as made:
        yield made


@pytest.fixture
def mirror() -> Iterator[ScriptedServer]:
    with scripted_server(file_server()) as made:
        yield made


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder


def downloader(*servers: str, mirrors: tuple[str, ...] = (), **changes: Any) -> Downloader:
    limits = DownloadLimits(**{"spare_bytes": 0, **changes.pop("limits", {})})
    transport = Transport(servers, mirrors, secret="s3cret", timeouts=changes.pop("timeouts", Timeouts()))
    kept: dict[str, Any] = {
        "sleep": lambda _: None,
        "random": lambda: 0.5,
        "monotonic": time.monotonic,
        "free_bytes": lambda path: shutil.disk_usage(path).free,
        **changes,
    }
    return Downloader(transport, servers, mirrors, limits=limits, **kept)


def failure(made: Downloader, into: Path, update: Update = UPDATE) -> AgentError:
    with pytest.raises(AgentError) as caught:
        made.fetch(update, into)
    assert not (into / SHA256).exists()
    return caught.value


def names(folder: Path) -> set[str]:
    return {path.name.removeprefix(SHA256) for path in folder.iterdir()}


def check_fetched(path: Path, into: Path) -> None:
    assert path == into / SHA256
    assert path.read_bytes() == CONTENT
    assert names(into) == {""}


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


def test_a_download_is_resumed_where_it_broke_off(server: ScriptedServer, into: Path) -> None:
    """NFR-PER-002: within a cycle, with Range and If-Range."""
    server.script = in_turn(breaking_off(), file_server())
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    second = server.requests[1].headers
    assert second["range"] == f"bytes={HALF}-"
    assert second["if-range"] == f'"{SHA256}"'


def test_a_download_is_resumed_in_the_next_cycle(server: ScriptedServer, into: Path) -> None:
    """NFR-REL-001, NFR-REL-003: another process goes on; nothing but the missing bytes is asked for."""
    server.script = in_turn(breaking_off(), lambda _, reply: reply.hang_up())
    error = failure(downloader(server.url), into)
    assert error.code is Code.NETWORK
    assert names(into) == {".part", ".etag"}
    server.script = file_server()
    server.requests.clear()
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    assert server.requests[0].headers["range"] == f"bytes={HALF}-"


def test_a_whole_part_is_finished_without_a_request(into: Path, server: ScriptedServer) -> None:
    """Killed between the last byte and the rename."""
    (into / f"{SHA256}.part").write_bytes(CONTENT)
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    assert server.requests == []


@pytest.mark.parametrize(
    "part",
    [bytes(HALF), bytes(len(CONTENT)), CONTENT + b"x", CONTENT[:HALF] + b"x", b""],
    ids=lambda part: str(len(part)),
)
def test_a_part_with_wrong_bytes_costs_one_more_request_at_most(
    server: ScriptedServer, into: Path, part: bytes
) -> None:
    """A power cut can leave zeros: the digest notices, and the download starts again."""
    (into / f"{SHA256}.part").write_bytes(part)
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    assert len(server.requests) <= 2


def test_a_file_that_changed_on_the_server_is_not_glued_to_the_old_part(server: ScriptedServer, into: Path) -> None:
    """If-Range: the server answers 200, and the part begins anew."""
    server.script = in_turn(breaking_off(etag='"old"', content=bytes(len(CONTENT))), file_server())
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    assert server.requests[1].headers["if-range"] == '"old"'
    assert len(server.requests) == 2


def test_a_server_that_ignores_if_range_and_glues_is_asked_once_more_from_the_start(
    server: ScriptedServer, into: Path
) -> None:
    """A wrong entity tag on resume: the digest decides."""

    def gluing(request: Request, reply: Reply) -> None:
        request.headers.pop("if-range", None)
        file_server()(request, reply)

    server.script = in_turn(breaking_off(etag='"old"', content=bytes(len(CONTENT))), gluing)
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    assert [request.headers.get("range") for request in server.requests] == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("status", [412, 416])
def test_a_refused_range_starts_again(server: ScriptedServer, into: Path, status: int) -> None:
    server.script = in_turn(breaking_off(), lambda _, reply: reply.send(status), file_server())
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    assert "range" not in server.requests[2].headers


@pytest.mark.parametrize(
    "span",
    [
        "",
        "bytes 0-1/2",
        f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT) + 1}",
        f"bytes {HALF}-{HALF}/{len(CONTENT)}",
        "x",
    ],
)
def test_a_range_that_does_not_continue_the_part_starts_again(server: ScriptedServer, into: Path, span: str) -> None:
    wrong: Script = lambda _, reply: reply.send(206, CONTENT[HALF:], content_range=span)  # noqa: E731 -- one line
    server.script = in_turn(breaking_off(), wrong, file_server())
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)


def test_wrong_bytes_are_refused_and_nothing_is_left(server: ScriptedServer, into: Path) -> None:
    """FR-UPD-006, EH-CLI-002: HASH_MISMATCH, discarded, and asked for once only."""
    server.script = file_server(bytes(len(CONTENT)))
    error = failure(downloader(server.url), into)
    assert isinstance(error, TrustRefused)
    assert error.code is Code.HASH_MISMATCH
    assert names(into) == set()
    assert len(server.requests) == 1


def test_wrong_bytes_in_pieces_are_refused_after_the_second_time(server: ScriptedServer, into: Path) -> None:
    """A server that breaks off each time must not keep the agent busy until the deadline."""
    wrong = bytes(len(CONTENT))

    def answer(request: Request, reply: Reply) -> None:
        (file_server(wrong) if "range" in request.headers else breaking_off(content=wrong))(request, reply)

    server.script = answer
    assert failure(downloader(server.url), into).code is Code.HASH_MISMATCH
    assert len(server.requests) == 4
    assert names(into) == set()


def endless(_: Request, reply: Reply) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while not reply.stopping.is_set():
        reply.raw(b"10000\r\n" + CONTENT[:0x10000] + b"\r\n")


def drip(_: Request, reply: Reply) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(CONTENT))
    for byte in CONTENT:
        if reply.stopping.wait(0.02):
            return
        reply.raw(bytes([byte]))


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


def test_what_one_source_began_another_finishes(server: ScriptedServer, mirror: ScriptedServer, into: Path) -> None:
    server.script = in_turn(breaking_off(), lambda _, reply: reply.hang_up())
    check_fetched(downloader(server.url, mirrors=(mirror.url,)).fetch(UPDATE, into), into)
    assert mirror.requests[0].headers["range"] == f"bytes={HALF}-"
    # The server's entity tag means nothing at the mirror.
    assert "if-range" not in mirror.requests[0].headers


def test_the_servers_own_name_for_itself_is_used_only_if_it_is_configured(server: ScriptedServer, into: Path) -> None:
    """A server behind a proxy says http://internal:8470/…; its path is right all the same."""
    for url in (f"{server.url}{PATH}", f"http://internal.example:8470{PATH}", PATH):
        (into / SHA256).unlink(missing_ok=True)
        check_fetched(downloader(server.url).fetch(_with(url=url), into), into)
        assert server.requests[-1].path == PATH


def _with(**changes: Any) -> Update:
    fields = {name: getattr(UPDATE, name) for name in UPDATE.__struct_fields__}
    return Update(**{**fields, **changes})


def test_a_url_that_is_none_leaves_the_mirrors(mirror: ScriptedServer, server: ScriptedServer, into: Path) -> None:
    update = _with(url="http://[bad")
    assert failure(downloader(server.url), into, update).code is Code.NO_SOURCE
    check_fetched(downloader(server.url, mirrors=(mirror.url,)).fetch(update, into), into)


def test_an_offer_without_a_source_says_so(into: Path, server: ScriptedServer) -> None:
    error = failure(downloader(server.url), into, _with(url="https://elsewhere.example"))
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
    error = failure(downloader(server.url, mirrors=(server.url,)), into, _with(**changes))
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


def test_a_download_ends_at_its_deadline_and_goes_on_in_the_next_cycle(server: ScriptedServer, into: Path) -> None:
    server.script = drip
    times = iter(range(0, 10**6, 100))
    made = downloader(
        server.url, monotonic=lambda: next(times), limits={"deadline_seconds": 1000.0, "slowest_bytes_per_second": 0.0}
    )
    assert failure(made, into).code is Code.TIMEOUT
    assert names(into) >= {".part"}
    server.script = file_server()
    check_fetched(downloader(server.url).fetch(UPDATE, into), into)
    assert "range" in server.requests[-1].headers


def test_a_link_in_place_of_the_part_is_not_written_through(server: ScriptedServer, into: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (into / f"{SHA256}.part").symlink_to(tmp_path / "precious")
    error = failure(downloader(server.url), into)
    assert error.code is Code.IO
    assert (tmp_path / "precious").read_text() == "x"


def test_the_real_server_is_fetched_from_and_resumed(tmp_path: Path, into: Path) -> None:
    """The whole way: a release in a tree, the server as a process, a part from an earlier cycle."""
    tree = Tree(tmp_path / "tree")
    tree.add(NAME, CONTENT)
    with running(tree.root, tmp_path / "state", "--insecure-no-auth") as real:
        offer = real.check(components=[{"name": "service", "version": "1.0.0"}])["updates"][0]
        update = _with(url=offer["url"], path=offer["path"])
        assert (offer["hash_sha256"], offer["size"]) == (SHA256, len(CONTENT))
        check_fetched(downloader(real.url).fetch(update, into), into)
        (into / SHA256).rename(into / f"{SHA256}.part")
        with (into / f"{SHA256}.part").open("r+b") as part:
            part.truncate(HALF)
        check_fetched(downloader(real.url).fetch(update, into), into)
