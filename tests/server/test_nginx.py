"""nginx in front, as ``systemd/nginx.conf.example`` has it: the server decides who gets a file, nginx sends it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3
from support.front import needs_nginx, nginx
from support.server import RunningServer, running
from support.serving import CONTENT, NESTED, RECALLED, SERVICE, fill
from support.trees import Tree

from repo_server.core.wire import SECRET_HEADER

SECRET = "a-secret-of-the-tests"
PATH = f"/v1/packages/{SERVICE}"
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
pytestmark = needs_nginx


@dataclass
class Front:
    """nginx before a server, and a client of an agent's."""

    url: str
    server: RunningServer
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False, timeout=30.0))

    def get(
        self, path: str, *, method: str = "GET", secret: str | None = SECRET, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given |= {} if secret is None else {SECRET_HEADER: secret}
        return self.http.request(method, f"{self.url}{path}", headers=given)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    tree = fill(Tree(folder / "tree"))
    secrets = folder / "secrets"
    secrets.write_text(f"fleet:{SECRET}\n")
    secrets.chmod(0o600)
    options = ("--secrets", str(secrets), "--x-accel", "/release-files/", "--trusted-proxy", "127.0.0.1")
    with (
        running(tree.root, folder / "state", *options) as server,
        nginx(folder / "nginx", server.port, tree.root) as url,
    ):
        front = Front(url, server)
        with front.http:
            yield front


def test_nginx_sends_the_file_under_the_headers_of_the_server(front: Front) -> None:
    response = front.get(PATH)
    assert (response.status, response.data) == (200, CONTENT)
    assert response.headers["etag"] == ETAG
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert response.headers["content-disposition"] == f'attachment; filename="{SERVICE}"'
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "x-accel-redirect" not in response.headers
    head = front.get(PATH, method="HEAD")
    assert (head.status, head.headers["content-length"], head.headers["etag"]) == (200, str(len(CONTENT)), ETAG)
    assert front.get(f"/v1/packages/{NESTED}").data == b"ui"


@pytest.mark.parametrize(
    ("header", "expected"),
    [("bytes=10-19", CONTENT[10:20]), ("bytes=-5", CONTENT[-5:]), ("bytes=1048570-", CONTENT[1048570:])],
)
def test_nginx_sends_parts(front: Front, header: str, expected: bytes) -> None:
    for if_range in ({}, {"if_range": ETAG}):
        response = front.get(PATH, range=header, **if_range)
        assert (response.status, response.data, response.headers["etag"]) == (206, expected, ETAG)


def test_a_part_of_another_file_is_the_whole_file(front: Front) -> None:
    response = front.get(PATH, range="bytes=10-19", if_range='"another"')
    assert (response.status, response.data) == (200, CONTENT)
    assert front.get(PATH, range="bytes=9999999-").status == 416
    several = front.get(PATH, range="bytes=0-9,5000-5009")
    assert several.status == 206
    assert several.headers["content-type"].startswith("multipart/byteranges")


def test_preconditions_are_the_servers(front: Front) -> None:
    known = front.get(PATH, if_none_match=ETAG)
    assert (known.status, known.data) == (304, b"")
    other = front.get(PATH, if_match='"other"')
    assert (other.status, other.json()["error_code"]) == (412, "precondition_failed")


def test_what_the_server_refuses_nginx_does_not_send(front: Front) -> None:
    assert front.get(PATH, secret=None).status == 401
    assert front.get(f"/v1/packages/{RECALLED}").json()["error_code"] == "blocked"
    for path in (f"/release-files/{SERVICE}", "/release-files/repo.toml", f"/release-files/{RECALLED}"):
        assert front.get(path).status == 404


def test_an_answer_leads_through_nginx(front: Front) -> None:
    body = (
        b'{"updater_version": "1.0.0", "os": "linux", "arch": "amd64", "release_channel": "stable",'
        b' "components": [{"name": "service", "version": "0.0.1"}]}'
    )
    answer = front.http.request("POST", f"{front.url}/v1/check", body=body, headers={SECRET_HEADER: SECRET})
    assert answer.status == 200
    assert answer.json()["updates"][0]["path"] == SERVICE


def test_a_file_that_was_exchanged_is_not_handed_over(tree: Tree, tmp_path: Path) -> None:
    """L25."""
    with (
        running(tree.root, tmp_path / "state", "--x-accel", "/release-files/") as server,
        nginx(tmp_path / "nginx", server.port, tree.root) as url,
    ):
        front = Front(url, server)
        with front.http:
            assert front.get(PATH).data == CONTENT
            (tree.root / ".new").write_bytes(b"E" * len(CONTENT))
            (tree.root / ".new").rename(tree.root / SERVICE)
            assert front.get(PATH).status in {404, 409}
