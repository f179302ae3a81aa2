"""``POST /v1/check`` with limits shared through Redis against the same without, two servers asked in turns."""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.bench.check import RELEASES
from tools.bench.fleet import FEW, ROUNDS, script_for
from tools.bench.programs import repo_server, wrk
from tools.bench.result import Result
from tools.bench.trees import make_tree


def run(home: Path) -> list[Result]:
    """Return the throughput with shared limits over that without."""
    tree = make_tree(home, RELEASES, 0)
    alone, together = home / "alone", home / "together"
    for folder in (alone, together):
        folder.mkdir()
    script = script_for(home, FEW)
    # Each device asks hundreds of times as often as it may.
    options = ("--limit-device", "1000000/1s", "--trusted-proxy", "127.0.0.1")
    with (
        redis(home) as port,
        repo_server(tree, alone, *options) as one,
        repo_server(tree, together, *options, "--redis-url", f"redis://127.0.0.1:{port}") as two,
    ):
        rounds = [(wrk(one, script)[0], wrk(two, script)[0]) for _ in range(ROUNDS)]
    without, shared = (statistics.median(pair[side] for pair in rounds) for side in (0, 1))
    return [Result("shared limits", shared, without, "1/s", "without --redis-url", at_least=0.9)]


@contextmanager
def redis(home: Path) -> Iterator[int]:
    """Run a Redis that keeps nothing on disk; yield its port."""
    if shutil.which("redis-server") is None:
        raise SystemExit("this benchmark needs redis-server (Debian package)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", home]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with socket.socket() as connection:
                    if connection.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
