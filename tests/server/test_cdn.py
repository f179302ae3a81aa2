"""Release files from elsewhere: answers lead to a copy of the tree (``--package-base-url``, promise 5)."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import pytest
from support.server import running
from support.serving import CONTENT, NESTED, fill
from support.trees import Tree

from repo_server.settings import SettingsInvalid, read_settings


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_answers_lead_to_a_static_copy_of_the_tree(tmp_path: Path) -> None:
    tree = fill(Tree(tmp_path / "tree"))
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as cdn:
        threading.Thread(target=cdn.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{cdn.server_port}/tree"
        with running(tree.root, tmp_path / "state", "--package-base-url", f"{base}/") as server:
            [update] = server.check()["updates"]
            [nested] = server.check(components=[{"name": "ui", "version": ""}])["updates"]
            listed = server.get("/v1/packages?component=ui").json()["packages"]
            assert nested["url"] == listed[0]["download_url"] == f"{base}/{NESTED}"
            assert server.http.request("GET", update["url"]).data == CONTENT
        cdn.shutdown()


def test_a_copy_that_everybody_may_read_may_be_kept_by_caches_between(tmp_path: Path) -> None:
    """A CDN whose origin is this server; a release file never changes under its name (L7)."""
    tree = fill(Tree(tmp_path / "tree"))
    with running(tree.root, tmp_path / "state", "--public-tree") as server:
        kept = "max-age=31536000, immutable"
        assert server.get(f"/tree/{NESTED}").headers["cache-control"] == f"public, {kept}"
        assert server.get(f"/tree/{NESTED}.sha256").headers["cache-control"] == "no-cache"
        assert server.get(f"/v1/packages/{NESTED}").headers["cache-control"] == f"private, {kept}"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("package_base_url", "ftp://x", "--package-base-url"),
        ("package_base_url", "https://x/?y", "--package-base-url"),
        ("x_accel", "release-files", "--x-accel"),
        ("x_accel", "/a b/", "--x-accel"),
        ("x_accel", "/", "--x-accel"),
    ],
)
def test_a_place_that_means_nothing_is_refused(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsInvalid, match=expected):
        read_settings({"tree": "t", "state": "s", name: value}, {})
