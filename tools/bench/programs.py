"""Starts the real server, a bare ASGI baseline, and the load generator."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.bench.trees import BIN

SECRET = "bench-secret"


@contextmanager
def repo_server(tree: Path, home: Path, *arguments: str) -> Iterator[str]:
    """Run ``repo-server serve`` with a secret and embedded PostgreSQL; yield its URL."""
    state = home / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    secrets = home / "secrets"
    secrets.write_text(f"bench:{SECRET}\n")
    secrets.chmod(0o600)
    command = [BIN / "repo-server", "serve", "--tree", tree, "--state", state, "--port", "0", "--secrets", secrets]
    with (home / "server.log").open("w") as log, started([*command, *arguments], log) as url:
        yield url


@contextmanager
def bare_server(home: Path, answer: bytes) -> Iterator[str]:
    """Run the baseline: an ASGI app on the same uvicorn that reads the body and answers the same bytes."""
    (home / "answer").write_bytes(answer)
    command = [sys.executable, "-m", "tools.bench.bare", home / "answer"]
    with (home / "bare.log").open("w") as log, started(command, log) as url:
        yield url


@contextmanager
def started(command: list[str | Path], log: object) -> Iterator[str]:
    """Start a program that prints ``listening on URL``; yield the URL; stop it afterwards."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:  # type: ignore[call-overload]
        try:
            for line in process.stdout:
                if line.startswith("listening on "):
                    break
            else:
                raise SystemExit(f"{command[0]} ended before it listened; see its log beside {command[-1]}")
            yield line.removeprefix("listening on ").strip()
        finally:
            process.terminate()
            process.wait(60)


def wrk(url: str, script: Path, seconds: int = 6, connections: int = 32) -> tuple[float, float]:
    """Load a URL with wrk on one thread; return requests per second and the 99th percentile in milliseconds."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk (Debian package wrk)")
    result = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, url],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if "Non-2xx" in result.stdout or "Socket errors" in result.stdout:
        raise SystemExit(f"wrk saw errors:\n{result.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", result.stdout)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", result.stdout)
    if rate is None or tail is None:
        raise SystemExit(f"wrk's output was not understood:\n{result.stdout}")
    return float(rate[1]), float(tail[1]) * {"us": 0.001, "ms": 1, "s": 1000}[tail[2]]
