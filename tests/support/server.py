"""Starts the real ``repo-server`` as a process of its own, for anybody's tests.

``with running(tree_folder, tmp_path / "state") as server:`` waits until the server is ready, and stops it at the end.
The state folder must not exist yet, or be private (0700). Without ``database`` no PostgreSQL is started, which is
quicker; checks and downloads work the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

START_SECONDS = 60.0
STOP_SECONDS = 60.0


@dataclass
class RunningServer:
    """A server process, and a client for it."""

    process: subprocess.Popen[str]
    url: str
    tree: Path
    state: Path
    log_path: Path
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False, timeout=30.0))

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        """Everything the server has logged so far."""
        return self.log_path.read_text()

    def request(self, method: str, path: str, **kwargs: Any) -> urllib3.BaseHTTPResponse:
        return self.http.request(method, f"{self.url}{path}", **kwargs)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        """Send a value as JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, body=data, headers={"content-type": "application/json", **(headers or {})})

    def check(self, *, headers: Mapping[str, str] | None = None, **fields: Any) -> dict[str, Any]:
        """Ask as an agent on linux-amd64 that has service 0.0.1, unless told otherwise; expect 200."""
        response = self.post("/v1/check", check_body(**fields), headers)
        assert response.status == 200, response.data
        answer: dict[str, Any] = response.json()
        return answer

    def offered(self, **fields: Any) -> dict[str, str]:
        """Return what an agent is offered: component → version."""
        return {update["name"]: update["version"] for update in self.check(**fields)["updates"]}

    def ready(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("/readyz").json()
        return answer

    def wait_for_database(self, state: str = "ready") -> None:
        wait_until(lambda: self.ready()["database"]["state"] == state, f"the database is {state}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop the process and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(STOP_SECONDS)


def check_body(**fields: Any) -> dict[str, Any]:
    """Return the body of a check."""
    return {
        "updater_version": "1.0.0",
        "os": "linux",
        "arch": "amd64",
        "release_channel": "stable",
        "components": [{"name": "service", "version": "0.0.1"}],
        **fields,
    }


def command(tree: Path, state: Path, *options: str) -> list[str]:
    """Return the command line of a server on a free port."""
    program = str(Path(sys.executable).with_name("repo-server"))
    return [program, "serve", "--tree", str(tree), "--state", str(state), "--port", "0", *options]


def environment(**changes: str) -> dict[str, str]:
    """Return an environment without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REPO_SERVER_")}
    return kept | changes


@contextlib.contextmanager
def running(
    tree: Path,
    state: Path,
    *options: str,
    database: bool = False,
    ready: bool = True,
    env: Mapping[str, str] | None = None,
    listener: socket.socket | None = None,
) -> Iterator[RunningServer]:
    """Run a server until the block ends; it has found its tree by then, and its database if ``database``.

    ``listener`` is handed over as a service manager does.
    """
    log_path = state.with_name(f"{state.name}.log")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    extra = [] if database or "--database-url" in options else ["--no-database"]
    with log_path.open("a") as log:
        process = subprocess.Popen(
            [*([] if listener is None else _activated(listener)), *command(tree, state, *extra, *options)],
            pass_fds=() if listener is None else (listener.fileno(),),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(**(env or {})),
        )
    with process:
        try:
            server = RunningServer(process, _listening_url(process, log_path), tree, state, log_path)
            with server.http:
                if ready:
                    wait_until(lambda: server.get("/readyz").status == 200, "the server is ready", log_path)
                if database:
                    server.wait_for_database()
                yield server
                server.stop()
        finally:
            if process.poll() is None:
                process.kill()


def wait_until(condition: Any, what: str, log_path: Path | None = None, seconds: float = START_SECONDS) -> Any:
    """Wait for a condition, generously, and return what it returned."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            log = "" if log_path is None else f"\n{log_path.read_text()[-4000:]}"
            raise AssertionError(f"waited {seconds:.0f} s until {what}{log}")
        time.sleep(0.02)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _activated(listener: socket.socket) -> list[str]:
    """Return what starts a program with a socket in the place where services look for it."""
    script = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3);"
        "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())};"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    return [sys.executable, "-IS", "-c", script, str(listener.fileno())]


def _listening_url(process: subprocess.Popen[str], log_path: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("listening on "):
            return line.removeprefix("listening on ").strip()
    raise AssertionError(f"the server ended with {process.wait()} before it listened:\n{log_path.read_text()[-4000:]}")
