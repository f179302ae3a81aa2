"""A real server program from the package registry, in two released versions, updated while it serves requests.

``pypiserver`` says its own version on its first page, so that every answer tells which release gave it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.programs import free_port, run
from support.server import running, wait_until

OLD, NEW = "2.3.2", "2.4.2"

PACKAGE = """\
component = "service"
version = "{version}"
os = "linux"
arch = "amd64"
payload = "files"
preserve = ["packages/**"]

[service]
kind = "process"
name = "pypiserver"
command = ["bin/serve", "{port}"]
stop_timeout_seconds = 10

[health]
kind = "http"
url = "http://127.0.0.1:{port}/healthz"
timeout_seconds = 30
probation_seconds = 0.5
"""

SERVE = """\
#!/bin/sh
here=$(dirname "$0")/..
mkdir -p "$here/packages"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$here/lib" exec {python} -m pypiserver run \\
  -i 127.0.0.1 -p "$1" --health-endpoint /healthz "$here/packages"
"""


def package(home: Path, version: str, port: int) -> Path:
    """Download a released version with what it needs and pack it as our service component."""
    source = home / f"pypiserver-{version}"
    install = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check",
        "--target", source / "files" / "lib", f"pypiserver=={version}",
    ]  # fmt: skip
    result = subprocess.run(install, capture_output=True, text=True, check=False)
    if result.returncode and "CI" not in os.environ:
        pytest.skip(f"the package registry cannot be reached: {result.stderr[-200:]}")
    assert result.returncode == 0, result.stderr
    serve = source / "files" / "bin" / "serve"
    serve.parent.mkdir()
    serve.write_text(SERVE.format(python=sys.executable))
    serve.chmod(0o755)
    (source / "package.toml").write_text(PACKAGE.format(version=version, port=port))
    archive = home / f"service-linux-amd64-{version}.tar.gz"
    run("repotool", "pack", source, "-o", archive)
    shutil.rmtree(source)
    return archive


@dataclass
class Visitor:
    """Asks for the first page again and again, and writes down which version answered, or that nobody did."""

    url: str
    seen: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            self.seen.append(self.once())
            time.sleep(0.02)

    def once(self) -> str:
        try:
            with urllib.request.urlopen(self.url, timeout=5) as response:
                page = response.read().decode()
        except OSError:
            return "nobody"
        match = re.search(r"running version ([\d.]+) of", page)
        return match[1] if match else f"half an answer: {page!r}"

    def wait_for(self, version: str) -> None:
        deadline = time.monotonic() + 30
        while version not in self.seen:
            assert time.monotonic() < deadline, f"{version} never answered: {self.seen[-5:]}"
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_server_is_updated_while_it_serves(tmp_path: Path) -> None:
    """FR-CMP-001 to FR-CMP-006 on somebody else's program; its data is preserved (L42)."""
    port = free_port()
    tree, keys, endpoint = tmp_path / "tree", tmp_path / "keys", tmp_path / "endpoint"
    run("repotool", "init", tree, "--keys", keys, "--no-passphrase")
    old, new = package(tmp_path, OLD, port), package(tmp_path, NEW, port)
    run("repotool", "publish", old, "--tree", tree, "--key", keys / "release.pem", "--channel", "stable")
    agent = ("commandit-updater", "--root-dir", endpoint)
    with running(tree, tmp_path / "state", database=True) as server:
        options = ["--server", server.url, "--root", keys / "root.json", "--components", "service"]
        run(*agent, "install", *options, "--service-manager", "process")
        visitor = Visitor(f"http://127.0.0.1:{port}/")
        thread = threading.Thread(target=visitor.run)
        thread.start()
        try:
            visitor.wait_for(OLD)
            kept = endpoint / "opt/commandit/service/packages/kept.txt"
            kept.write_text("a user's data")

            run("repotool", "publish", new, "--tree", tree, "--key", keys / "release.pem", "--channel", "beta")
            wait_until(lambda: server.offered(release_channel="beta") == {"service": NEW}, "beta offers it")
            run(*agent, "once")
            assert visitor.once() == OLD
            run("repotool", "promote", NEW, "--tree", tree, "--to", "stable", "--yes")
            wait_until(lambda: server.offered() == {"service": NEW}, "stable offers it")
            run(*agent, "once")
            visitor.wait_for(NEW)
        finally:
            visitor.stop.set()
            thread.join()
            run(*agent, "stop", expect=None)
        status = json.loads(run(*agent, "status", "--json"))
    assert status["installed_components"] == [{"name": "service", "version": NEW}]
    assert kept.read_text() == "a user's data"
    answers = [version for version in visitor.seen if version != "nobody"]
    assert set(answers) == {OLD, NEW}
    assert answers == sorted(answers), "after the new version answered, the old one answered again"
