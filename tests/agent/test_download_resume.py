"""A download that broke off goes on where it was, and never glues two files together (FR-UPD-006)."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.agent_http import Reply, Request, ScriptedServer
from support.downloads import (
    CONTENT,
    HALF,
    NAME,
    SHA256,
    UPDATE,
    Script,
    breaking_off,
    check_fetched,
    downloader,
    drip,
    failure,
    file_server,
    in_turn,
    names,
    offer_with,
)
from support.server import running
from support.trees import Tree

from agent.codes import Code
from agent.errors import TrustRefused


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


def test_what_one_source_began_another_finishes(server: ScriptedServer, mirror: ScriptedServer, into: Path) -> None:
    server.script = in_turn(breaking_off(), lambda _, reply: reply.hang_up())
    check_fetched(downloader(server.url, mirrors=(mirror.url,)).fetch(UPDATE, into), into)
    assert mirror.requests[0].headers["range"] == f"bytes={HALF}-"
    # The server's entity tag means nothing at the mirror.
    assert "if-range" not in mirror.requests[0].headers


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
        update = offer_with(url=offer["url"], path=offer["path"])
        assert (offer["hash_sha256"], offer["size"]) == (SHA256, len(CONTENT))
        check_fetched(downloader(real.url).fetch(update, into), into)
        (into / SHA256).rename(into / f"{SHA256}.part")
        with (into / f"{SHA256}.part").open("r+b") as part:
            part.truncate(HALF)
        check_fetched(downloader(real.url).fetch(update, into), into)
