"""``make demo``: the whole story on one machine, with the real programs and nothing else.

Keys, packages of three components in two versions, beta, an agent, promotion, an update, a broken release that goes
back, a recall. Exits 1 when a step did not happen; stops every process that it started.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

BIN = Path(sys.executable).parent
COMPONENTS = ("service", "probe", "ui")
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")

PROGRAM = """\
#!{python}
import http.server, sys
VERSION, HEALTHY = {version!r}, {healthy!r}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if HEALTHY else 500)
        self.end_headers()
        self.wfile.write(VERSION.encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""

PACKAGE = """\
component = "{component}"
version = "{version}"
os = "linux"
arch = "{arch}"
payload = "files"
requires = [{requires}]

[service]
kind = "process"
name = "commandit-{component}"
command = ["bin/serve"]
stop_timeout_seconds = 5

[health]
kind = "http"
url = "http://127.0.0.1:{port}/"
timeout_seconds = 5
probation_seconds = 0.5
"""


class StepFailed(Exception):
    """Something in the story did not happen."""


@dataclass
class Story:
    """Where everything is, and what happened so far."""

    home: Path
    ports: dict[str, int]
    console: Console
    server_url: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def tree(self) -> Path:
        return self.home / "downloads"

    @property
    def endpoint(self) -> Path:
        return self.home / "endpoint"

    def tell(self, what: str, outcome: str, look: str) -> None:
        self.rows.append((what, outcome, look))
        self.console.print(f"[green]✓[/] {what}: {outcome}")

    def repotool(self, *arguments: str | Path) -> str:
        return run([BIN / "repotool", *arguments])

    def agent(self, *arguments: str | Path, expect: tuple[int, ...] = (0,)) -> str:
        return run([BIN / "commandit-updater", "--root-dir", self.endpoint, *arguments], expect)

    def installed(self) -> dict[str, str]:
        status = json.loads(self.agent("status", "--json"))
        return {item["name"]: item["version"] for item in status["installed_components"]}

    def running(self) -> dict[str, str]:
        """Ask each component's process which version it is."""
        return {name: fetch(f"http://127.0.0.1:{port}/") for name, port in self.ports.items()}

    def expect_version(self, version: str) -> None:
        wanted = dict.fromkeys(COMPONENTS, version)
        if self.installed() != wanted or self.running() != wanted:
            raise StepFailed(f"expected {version} everywhere; installed {self.installed()}, running {self.running()}")


def main() -> int:
    """Tell the story; return the exit code."""
    parser = argparse.ArgumentParser(description="Publish, promote, update, roll back and recall, with real processes.")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the tree, the keys and the endpoint")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="commandit-demo-"))
    story = Story(home, dict(zip(COMPONENTS, free_ports(len(COMPONENTS)), strict=True)), Console())
    started = time.monotonic()
    try:
        with server(story):
            try:
                tell_story(story)
            finally:
                story.agent("stop", expect=(0, 1))
    except StepFailed as error:
        story.console.print(f"[red]✗ {error}[/]\nEverything is in {home}", soft_wrap=True)
        return 1
    table = Table("step", "what happened", "where to look", title=f"Done in {time.monotonic() - started:.0f} s")
    for row in story.rows:
        table.add_row(*row)
    story.console.print(table)
    if options.keep:
        story.console.print(f"Kept: {home}")
    else:
        shutil.rmtree(home)
        story.console.print("The paths were in the demo's folder, now gone; `python tools/demo.py --keep` keeps it.")
    return 0


def tell_story(story: Story) -> None:
    """Go through the steps; raise ``StepFailed`` at the first that did not happen."""
    publish(story, "1.0.0", "stable")
    publish(story, "1.1.0", "beta")
    story.tell("publish", "1.0.0 to stable, 1.1.0 to beta, three components each", "downloads/, repotool ls")

    story.agent("install", "--server", story.server_url, "--root", story.home / "keys/root.json",
                "--components", ",".join(COMPONENTS), "--service-manager", "process")  # fmt: skip
    story.expect_version("1.0.0")
    story.tell("install", "the agent got 1.0.0 of everything and started it", "endpoint/opt/commandit/")

    story.agent("once")
    story.expect_version("1.0.0")
    story.tell("poll", "stable does not see beta: still 1.0.0", "repotool explain")

    story.repotool("promote", "1.1.0", "--tree", story.tree, "--to", "stable", "--yes")
    settle(story, "1.1.0")
    story.agent("once")
    story.expect_version("1.1.0")
    story.tell("promote", "sidecars rewritten, the agent updated to 1.1.0", "downloads/*.channel")

    publish(story, "1.2.0", "stable", broken="ui")
    story.agent("once", expect=(1,))
    story.expect_version("1.1.0")
    error = json.loads(story.agent("status", "--json"))["last_error_message"]
    story.tell("broken 1.2.0", f"all three went back to 1.1.0 ({error})", "endpoint/var/lib/commandit/updater.log")

    story.repotool("block", "1.2.0", "--tree", story.tree, "--reason", "does not start", "--yes")
    story.repotool("block", "1.1.0", "--tree", story.tree, "--reason", "loses settings", "--yes")
    settle(story, "1.0.0", has="1.1.0")
    story.agent("once")
    story.expect_version("1.0.0")
    story.tell("recall", "1.1.0 is blocked, the agent went back to 1.0.0", "downloads/*.blocked, repotool doctor")


def publish(story: Story, version: str, channel: str, broken: str | None = None) -> None:
    """Pack, sign and publish a version of all components, and wait until the server offers it."""
    archives = []
    for component in COMPONENTS:
        source = story.home / "packages" / f"{component}-{version}"
        program = source / "files" / "bin" / "serve"
        program.parent.mkdir(parents=True)
        port = story.ports[component]
        program.write_text(
            PROGRAM.format(python=sys.executable, version=version, healthy=component != broken, port=port)
        )
        program.chmod(0o755)
        requires = f'{{ name = "service", min_version = "{version}" }}' if component == "ui" else ""
        (source / "package.toml").write_text(
            PACKAGE.format(component=component, version=version, arch=ARCH, requires=requires, port=port)
        )
        archive = story.home / "packages" / f"{component}-linux-{ARCH}-{version}.tar.gz"
        story.repotool("pack", source, "-o", archive)
        archives.append(archive)
    key = story.home / "keys" / "release.pem"
    story.repotool("publish", *archives, "--tree", story.tree, "--key", key, "--channel", channel)
    settle(story, version, channel=channel)


def settle(story: Story, version: str, channel: str = "stable", has: str = "0.0.1") -> None:
    """Wait until the server's answer to a device with ``has`` is ``version`` of all components."""
    body = {
        "updater_version": "1.0.0", "os": "linux", "arch": ARCH, "release_channel": channel,
        "components": [{"name": name, "version": has} for name in COMPONENTS],
    }  # fmt: skip
    offered: dict[str, str] = {}
    for _ in range(200):
        answer = json.loads(fetch(f"{story.server_url}/v1/check", json.dumps(body).encode()))
        offered = {update["name"]: update["version"] for update in answer["updates"]}
        if offered == dict.fromkeys(COMPONENTS, version):
            return
        time.sleep(0.05)
    raise StepFailed(f"the server does not offer {version}: {offered}; {answer['reasons']}")


@contextmanager
def server(story: Story) -> Iterator[None]:
    """Make keys and a tree, and run the real server with embedded PostgreSQL on a free port."""
    story.repotool("init", story.tree, "--keys", story.home / "keys", "--no-passphrase")
    story.tell("init", "keys, root.json and an empty tree", "keys/, downloads/metadata/")
    (story.home / "state").mkdir(mode=0o700)
    command = [BIN / "repo-server", "serve", "--tree", story.tree, "--state", story.home / "state", "--port", "0"]
    with (
        (story.home / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            story.server_url = first_url(process)
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def first_url(process: subprocess.Popen[str]) -> str:
    """Read the server's output up to the line that says where it listens."""
    if process.stdout is None:
        raise RuntimeError("the server was started without a pipe")
    for line in process.stdout:
        if line.startswith("listening on "):
            return line.removeprefix("listening on ").strip()
    raise StepFailed("the server ended before it listened; see server.log")


def run(command: list[str | Path], expect: tuple[int, ...] = (0,)) -> str:
    """Run one of our programs and return its output; raise ``StepFailed`` on another exit code than expected."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    if result.returncode not in expect:
        words = " ".join(str(word) for word in command[:4])
        raise StepFailed(f"{words} … ended with {result.returncode}: {result.stdout[-800:]}{result.stderr[-1200:]}")
    return result.stdout


def fetch(url: str, body: bytes | None = None) -> str:
    """GET, or POST JSON."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            text: str = response.read().decode()
            return text
    except OSError as error:
        raise StepFailed(f"{url}: {error}") from error


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


if __name__ == "__main__":
    sys.exit(main())
