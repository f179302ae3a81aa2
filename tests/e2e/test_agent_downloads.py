"""The real agent and the real server, with somebody else who sends the release files."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import pytest
from support.components import Package
from support.endpoints import Endpoint
from support.front import needs_nginx, nginx
from support.server import running
from support.trees import Tree

from repo_server.core.wire import SECRET_HEADER

SECRET = "a-secret-of-the-tests"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.write_text(f"fleet:{SECRET}\n")
    path.chmod(0o600)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "tree")
    package = Package("service", "1.0.0", files={"data": bytes(range(256)) * 4096})
    tree.add(package.name, package.build())
    (tmp_path / "root.json").write_bytes(tree.root_json)
    return tree


def install(endpoint: Endpoint, home: Path, url: str, *more: str) -> None:
    endpoint.run(
        "install", "--server", url, "--root", home / "root.json", "--secret-file", home / "secret",
        "--components", "service", "--service-manager", "process", *more,
    )  # fmt: skip
    assert endpoint.installed() == {"service": "1.0.0"}
    assert endpoint.runs_live("service")


@needs_nginx
def test_an_agent_installs_what_nginx_sends(tree: Tree, secrets: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    options = ("--secrets", str(secrets), "--x-accel", "/release-files/", "--trusted-proxy", "127.0.0.1")
    with (
        running(tree.root, tmp_path / "state", *options) as server,
        nginx(tmp_path / "nginx", server.port, tree.root) as url,
    ):
        install(endpoint, tmp_path, url)
        name = Package("service", "1.0.0").name
        log = (tmp_path / "nginx" / "access.log").read_text()
        assert f"/v1/packages/{name} 200 /release-files/{name}" in log


def test_an_agent_installs_what_a_cdn_sends_and_tells_it_no_secret(
    tree: Tree, secrets: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    """The CDN's URL is among the agent's mirrors; the server itself sends no package."""
    asked: list[tuple[str, str | None]] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            asked.append((self.path, self.headers.get(SECRET_HEADER)))

    handler = functools.partial(Handler, directory=str(tree.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as cdn:
        threading.Thread(target=cdn.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{cdn.server_port}"
        with running(tree.root, tmp_path / "state", "--secrets", str(secrets), "--package-base-url", url) as server:
            install(endpoint, tmp_path, server.url, "--mirror", url)
            assert [(path, secret) for path, secret in asked if "service-" in path] == [
                (f"/{Package('service', '1.0.0').name}", None)
            ]
            server.stop()
            assert "/v1/packages/" not in (tmp_path / "state" / "audit.log").read_text()
        cdn.shutdown()
