"""Downloads: the whole file or a part, only what is in the catalogue, and only the bytes that were verified."""

from __future__ import annotations

import email
import email.policy
import hashlib
import socket
from pathlib import Path

import pytest
from support.server import RunningServer, running
from support.serving import CONTENT, NESTED, RAMPED, RECALLED, SERVICE, Served
from support.trees import Tree

PATH = f"/v1/packages/{SERVICE}"
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def test_a_release_file_is_served_whole(server: RunningServer) -> None:
    """FR-SRV-002; the ETag is the digest, so a copy anywhere has the same."""
    response = server.get(PATH)
    assert (response.status, response.data) == (200, CONTENT)
    headers = response.headers
    assert headers["etag"] == ETAG
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == f'attachment; filename="{SERVICE}"'
    assert "immutable" in headers["cache-control"]
    assert headers["accept-ranges"] == "bytes"


def test_head_says_the_same_without_the_bytes(server: RunningServer) -> None:
    got, head = server.get(PATH), server.request("HEAD", PATH)
    assert (head.status, head.data) == (200, b"")
    different = {name for name in got.headers if got.headers[name] != head.headers.get(name)}
    assert different <= {"date"}
    assert head.headers["content-length"] == str(len(CONTENT))


def test_a_release_in_folders_is_served_under_its_path(server: RunningServer) -> None:
    """L1: folders mean nothing, but they are part of the path."""
    assert server.get(f"/v1/packages/{NESTED}").data == b"ui"


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=1000-1999", 1000, 1999),
        ("bytes=1048570-", 1048570, 1048575),
        ("bytes=-5", 1048571, 1048575),
        ("bytes=1048570-99999999999999999999", 1048570, 1048575),
    ],
)
def test_a_range_is_served_with_its_place(server: RunningServer, header: str, first: int, last: int) -> None:
    """NFR-PER-002."""
    response = server.get(PATH, {"range": header})
    assert (response.status, response.data) == (206, CONTENT[first : last + 1])
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(CONTENT)}"
    assert response.headers["content-length"] == str(last + 1 - first)


def test_a_download_that_broke_off_can_be_continued(server: RunningServer) -> None:
    start = server.get(PATH, {"range": "bytes=0-399999"}).data
    rest = server.get(PATH, {"range": "bytes=400000-", "if-range": ETAG})
    assert rest.status == 206
    assert start + rest.data == CONTENT
    changed = server.get(PATH, {"range": "bytes=400000-", "if-range": '"another"'})
    assert (changed.status, changed.data) == (200, CONTENT)


@pytest.mark.parametrize("header", ["bytes=1048576-", "bytes=9999999-99999999", "bytes=-0"])
def test_a_range_out_of_bounds_is_416_and_says_the_size(server: RunningServer, header: str) -> None:
    response = server.get(PATH, {"range": header})
    assert (response.status, response.json()["error_code"]) == (416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    "header", ["bytes=0-1,x", "bytes=5-1", "bytes=x", "seconds=1-2", "bytes=" + ",".join(["0-"] * 500)]
)
def test_ranges_that_are_malformed_or_many_get_the_whole_file(server: RunningServer, header: str) -> None:
    response = server.get(PATH, {"range": header})
    assert (response.status, len(response.data)) == (200, len(CONTENT))


def test_several_ranges_come_as_parts_with_their_places(server: RunningServer) -> None:
    """RFC 9110, section 14.6: as a mail reader understands it; the ETag is the file's."""
    response = server.get(PATH, {"range": "bytes=0-9,-5, 5000-5099", "if-range": ETAG})
    assert (response.status, response.headers["etag"]) == (206, ETAG)
    assert response.headers["content-length"] == str(len(response.data))
    head = f"content-type: {response.headers['content-type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + response.data, policy=email.policy.HTTP).get_payload()
    size = len(CONTENT)
    assert (
        [(part["content-range"], part.get_payload(decode=True)) for part in parts]
        == [  # type: ignore[union-attr]  # a multipart's
            (f"bytes 0-9/{size}", CONTENT[:10]),
            (f"bytes {size - 5}-{size - 1}/{size}", CONTENT[-5:]),
            (f"bytes 5000-5099/{size}", CONTENT[5000:5100]),
        ]
    )
    assert {part["content-type"] for part in parts} == {"application/octet-stream"}  # type: ignore[index, union-attr]
    other = server.get(PATH, {"range": "bytes=0-9,5000-5099", "if-range": '"another"'})
    assert (other.status, other.data) == (200, CONTENT)


def test_who_has_it_already_gets_304(server: RunningServer) -> None:
    response = server.get(PATH, {"if-none-match": f'"other", {ETAG}'})
    assert (response.status, response.data, response.headers["etag"]) == (304, b"", ETAG)
    assert server.get(PATH, {"if-match": '"other"'}).status == 412


def test_a_recalled_release_is_not_served(server: RunningServer) -> None:
    """L15, L51."""
    for prefix in ("/v1/packages/", "/tree/"):
        response = server.get(f"{prefix}{RECALLED}")
        assert (response.status, response.json()["error_code"]) == (404, "blocked")


def test_a_release_in_a_ramp_is_served_to_whoever_was_offered_it(server: RunningServer) -> None:
    """L14 decides about offers; the file itself has no audience."""
    assert server.get(f"/v1/packages/{RAMPED}").status == 200


SECRETS_OF_THE_TREE = [
    "repo.toml", "policy/channels.toml", "commands/secret.json", ".published", ".lock", "holiday.jpg",
    "service-linux-amd64-9.9.9.tar.gz", "metadata/1.root.json", f"{SERVICE}.sha256", "", "2026", "2026/q4/", "/",
]  # fmt: skip


@pytest.mark.parametrize("path", SECRETS_OF_THE_TREE)
def test_nothing_but_release_files_is_a_package(server: RunningServer, path: str) -> None:
    """L8: pending and problem files are not served; the operator's files never are."""
    assert server.get(f"/v1/packages/{path}").status == 404


@pytest.mark.parametrize("path", [*SECRETS_OF_THE_TREE[:8], f"{SERVICE}.bak", f"{RECALLED}.sig", "holiday.jpg.sha256"])
def test_the_tree_shows_only_what_is_offered(server: RunningServer, path: str) -> None:
    assert server.get(f"/tree/{path}").status == 404


UP = [
    "../repo.toml", "..%2frepo.toml", "..%2Frepo.toml", "%2e%2e/repo.toml", "%2e%2e%2frepo.toml", ".%2e/repo.toml",
    "..\\repo.toml", "..%5crepo.toml", "%252e%252e%252frepo.toml", "..%252frepo.toml", "..%c0%afrepo.toml",
    "%c0%ae%c0%ae/repo.toml", "....//repo.toml", "./repo.toml", "%2e/repo.toml", "//repo.toml", "%2fetc/passwd",
    "/etc/passwd", "//etc/passwd", "../../../../../../../../etc/passwd", "..%00/repo.toml", "repo.toml%00",
    f"{SERVICE}%00", f"{SERVICE}%00.sha256", f"2026/../{SERVICE}", f"./{SERVICE}", f"%2e/{SERVICE}", f"/{SERVICE}",
    f"{SERVICE}/", f"{SERVICE}/.", f"{SERVICE}%20", f"{SERVICE}%0d%0aset-cookie:x", f"{SERVICE}%ff", "%ff%fe",
    "~root/.profile", "C:%5cwindows%5cwin.ini", f"file:///{SERVICE}", f"{SERVICE}::$DATA", f"{SERVICE.upper()}",
]  # fmt: skip


@pytest.mark.parametrize("prefix", ["/v1/packages/", "/tree/", "/metadata/"])
def test_no_spelling_of_a_path_leads_out_of_the_catalogue(server: RunningServer, prefix: str) -> None:
    """Raw sockets, because clients tidy paths up; the table covers separators, encodings, NUL and line ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        reader = connection.makefile("rb")
        for spelling in UP:
            connection.sendall(f"GET {prefix}{spelling} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            status = int(reader.readline().split()[1])
            length = 0
            while (line := reader.readline()) != b"\r\n":
                name, _, value = line.decode().partition(":")
                assert name.lower() != "set-cookie", spelling
                length = int(value) if name.lower() == "content-length" else length
            body = reader.read(length)
            assert status == 404, f"{prefix}{spelling}: {status} {body[:100]!r}"


def test_the_tree_serves_what_a_mirror_serves(served: Served) -> None:
    """Promise 5: a static agent finds release file, sidecars and metadata under the paths of the tree."""
    server, root = served.server, served.tree.root
    assert server.get(f"/tree/{SERVICE}").data == CONTENT
    for name in (f"{SERVICE}.sha256", f"{SERVICE}.sig", f"{SERVICE}.meta", f"{NESTED}.sig"):
        response = server.get(f"/tree/{name}")
        assert (response.status, response.data) == (200, (root / name).read_bytes())
        assert response.headers["cache-control"] == "no-cache"
        assert server.get(f"/tree/{name}", {"if-none-match": response.headers["etag"]}).status == 304
    assert server.get(f"/tree/{SERVICE}.rollout").status == 404


def test_metadata_is_served_by_its_name_only(served: Served) -> None:
    """L22: roots are public, in TUF's names."""
    server = served.server
    response = server.get("/metadata/1.root.json")
    assert (response.status, response.data) == (200, served.tree.root_json)
    for name in (
        "2.root.json",
        "root.txt",
        ".hidden.json",
        "1.root.json.bak",
        "..json",
        "x/1.root.json",
        "0.root.json",
    ):
        assert server.get(f"/metadata/{name}").status == 404


def test_a_release_that_was_taken_away_is_404(tree: Tree, tmp_path: Path) -> None:
    (tree.root / "x").mkdir()
    other = tree.add("ui-linux-amd64-1.0.0.tar.gz", b"ui")
    with running(tree.root, tmp_path / "state") as server:
        assert server.get("/v1/packages/ui-linux-amd64-1.0.0.tar.gz").status == 200
        other.unlink()
        assert server.get("/v1/packages/ui-linux-amd64-1.0.0.tar.gz").status == 404
        assert server.get(PATH).status == 200
