"""From `.channel` rewritten to the new answer served, in a tree of 10,000 releases (design §9: p99 <= 100 ms).

The sidecar is written by the same atomic rename that ``repotool promote`` uses; a client polls ``/v1/check`` until the
answer changes. The first turns are not counted: the server has just started, and PostgreSQL with it.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from pathlib import Path
from urllib.parse import urlsplit

from repo_server.core.wire import SECRET_HEADER
from repo_server.tree.treeio import write_atomic
from tools.bench.programs import SECRET, repo_server
from tools.bench.result import Result
from tools.bench.trees import make_tree

RELEASES = 10_000
TURNS = 200
WARM_UP = 4
BUDGET_MS = 100.0


def run(home: Path) -> list[Result]:
    """Return median and p99 against the budget of 100 ms."""
    tree = make_tree(home, RELEASES, 0)
    newest = RELEASES // 24 - 1
    sidecar = next(tree.rglob(f"service-linux-amd64-1.{newest}.0.tar.gz")).with_name(
        f"service-linux-amd64-1.{newest}.0.tar.gz.channel"
    )
    with repo_server(tree, home) as url:
        client = Client(url)
        took = []
        for turn in range(WARM_UP + TURNS):
            word, version = (("stable", f"1.{newest}.0"), ("alpha", None))[turn % 2]
            write_atomic(sidecar, f"{word}\n".encode())
            started = time.perf_counter()
            while (client.offered() == f"1.{newest}.0") != (version is not None):
                if time.perf_counter() - started > 30:
                    raise SystemExit("the promotion was not served within 30 s")
            took.append((time.perf_counter() - started) * 1000)
            time.sleep(0.05)
    counted = took[WARM_UP:]
    tail = statistics.quantiles(counted, n=100)[98]
    return [
        Result("promotion to answer, median", statistics.median(counted), BUDGET_MS, "ms", "100 ms", at_most=1.0),
        Result("promotion to answer, p99", tail, BUDGET_MS, "ms", "100 ms", at_most=1.0),
    ]


class Client:
    """One device on one connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def offered(self) -> str | None:
        """Return the version that is offered."""
        body = {
            "updater_version": "1.0.0", "os": "linux", "arch": "amd64", "release_channel": "stable",
            "components": [{"name": "service", "version": "0.0.1"}],
        }  # fmt: skip
        headers = {"Content-Type": "application/json", SECRET_HEADER: SECRET}
        self._connection.request("POST", "/v1/check", json.dumps(body), headers)
        updates = json.loads(self._connection.getresponse().read())["updates"]
        return updates[0]["version"] if updates else None
