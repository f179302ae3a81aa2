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
NEWEST = RELEASES // 24 - 1
TURNS = 200
WARM_UP = 4
BUDGET_MS = 100.0
WORKERS = 3


def run(home: Path) -> list[Result]:
    """Return median and p99 against the budget of 100 ms, for one process and for several."""
    tree = make_tree(home, RELEASES, 0)
    name = f"service-linux-amd64-1.{NEWEST}.0.tar.gz"
    sidecar = next(tree.rglob(name)).with_name(f"{name}.channel")
    with repo_server(tree, home) as url:
        found = results("promotion to answer", measured(url, sidecar, 1))
    with repo_server(tree, home, "--workers", str(WORKERS)) as url:
        # Whichever worker is awake takes a connection, so that several belong to each.
        return [*found, *results(f"the same, {WORKERS} workers", measured(url, sidecar, 4 * WORKERS))]


def measured(url: str, sidecar: Path, connections: int) -> list[float]:
    """Promote and demote again and again; return how many milliseconds it takes until every connection tells."""
    clients = [Client(url) for _ in range(connections)]
    took = []
    for turn in range(WARM_UP + TURNS):
        word, offered = (("stable", True), ("alpha", False))[turn % 2]
        write_atomic(sidecar, f"{word}\n".encode())
        started = time.perf_counter()
        waiting = list(clients)
        while waiting:
            waiting = [client for client in waiting if (client.offered() == f"1.{NEWEST}.0") != offered]
            if time.perf_counter() - started > 30:
                raise SystemExit("the promotion was not served within 30 s")
        took.append((time.perf_counter() - started) * 1000)
        time.sleep(0.05)
    return took[WARM_UP:]


def results(name: str, took: list[float]) -> list[Result]:
    """Compare with the budget."""
    tail = statistics.quantiles(took, n=100)[98]
    return [
        Result(f"{name}, median", statistics.median(took), BUDGET_MS, "ms", "100 ms", at_most=1.0),
        Result(f"{name}, p99", tail, BUDGET_MS, "ms", "100 ms", at_most=1.0),
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
