"""Warm and cold start of the scanner (design §9).

Warm: 10,000 releases against an ``os.scandir`` walk that reads the sidecars (<= 3x). Cold: a gigabyte against
``sha256sum`` with as many processes as cores (<= 1.3x).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from repo_server.tree.scan import Scanner
from tools.bench.result import Result
from tools.bench.trees import make_tree

RELEASES = 10_000
LARGE = (240, 4 * 1024 * 1024)
"""Files and bytes in each, for the cold start: about one gigabyte."""


def run(home: Path) -> list[Result]:
    """Return both ratios."""
    (home / "many").mkdir()
    (home / "large").mkdir()
    return [warm(home / "many"), cold(home / "large")]


def warm(home: Path) -> Result:
    """Scan a tree whose digests are in the cache."""
    tree = make_tree(home, RELEASES, 0)
    scan(tree, home / "state")
    took = statistics.median(timed(lambda: scan(tree, home / "state")) for _ in range(3))
    walked = statistics.median(timed(lambda: walk(str(tree))) for _ in range(3))
    return Result("warm start, 10,000 releases", took, walked, "s", "scandir walk reading sidecars", at_most=3.0)


def cold(home: Path) -> Result:
    """Scan a tree that was never seen; all its bytes are in the page cache for both sides."""
    tree = make_tree(home, *LARGE)
    digest_all(tree)
    baseline = statistics.median(timed(lambda: digest_all(tree)) for _ in range(3))
    took = statistics.median(timed(lambda number=number: scan(tree, home / f"state{number}")) for number in range(3))
    return Result("cold start, 1 GB", took, baseline, "s", "sha256sum, a process per core", at_most=1.3)


def scan(tree: Path, state: Path) -> None:
    """Start a scanner with the cache in ``state`` and let it see the whole tree."""
    state.mkdir(mode=0o700, exist_ok=True)
    scanner = Scanner(tree, state)
    try:
        result = scanner.full(datetime.now(UTC))
    finally:
        scanner.close()
    if result.problems or not len(result.catalogue):
        raise SystemExit(f"the benchmark's tree has problems: {result.problems[:3]}")


def walk(folder: str) -> int:
    """Read all sidecars in the plainest way."""
    total = 0
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            total += walk(entry.path)
        elif entry.name.endswith((".sha256", ".sig", ".channel")):
            with open(entry.path, "rb") as file:  # noqa: PTH123 -- the baseline has no overhead
                total += len(file.read())
    return total


def digest_all(tree: Path) -> None:
    """Run sha256sum over the release files."""
    names = "\0".join(str(path) for path in tree.rglob("*.tar.gz"))
    command = ["xargs", "-0", "-n8", f"-P{os.cpu_count()}", "sha256sum"]
    subprocess.run(command, input=names, text=True, check=True, stdout=subprocess.DEVNULL)


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
