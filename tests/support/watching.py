"""A watcher at work on a tree of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repo_server.tree.live import Live, ScanResult, Snapshot
from repo_server.tree.scan import Scanner, ScanOptions
from repo_server.tree.watch import Watcher, WatchOptions
from support.scanning import codes
from support.trees import Tree

NAME = "service-linux-amd64-1.2.3.tar.gz"
GENEROUS = 60.0
"""Seconds until a test gives up waiting; nothing takes a hundredth of it."""


@dataclass
class Running:
    """A watcher at work."""

    tree: Tree
    live: Live
    watcher: Watcher
    scanner: Scanner
    stop: asyncio.Event
    snapshots: list[Snapshot] = field(default_factory=list)

    @property
    def result(self) -> ScanResult:
        return self.live.current.result

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        await wait_for(lambda: self.live.ready and condition())


async def wait_for(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(GENEROUS):
        while not condition():  # noqa: ASYNC110 -- files and threads set no event
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def watching(tree: Tree, state: Path | None = None, **options: Any) -> AsyncIterator[Running]:
    live, stop = Live(), asyncio.Event()
    scanner = Scanner(tree.root, state, ScanOptions(settle_seconds=0.2))
    snapshots: list[Snapshot] = []
    watcher = Watcher(scanner, live, WatchOptions(**options), lambda: datetime.now(UTC), [snapshots.append])
    task = asyncio.create_task(watcher.run(stop))
    running = Running(tree, live, watcher, scanner, stop, snapshots)
    try:
        await running.until(lambda: True)
        yield running
    finally:
        stop.set()
        await asyncio.wait_for(task, GENEROUS)
        scanner.close()


def still_tree(folder: Path) -> Tree:
    """Make a tree in which nothing but the listener leads to a second look: full scans are a day apart."""
    tree = Tree(folder)
    tree.add(NAME, channel="beta", folder="a/b")
    (tree.root / "repo.toml").write_text("rescan_seconds = 86400\n")
    return tree


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 2 * GENEROUS))


async def heard(running: Running) -> None:
    """Wait until the listener has reported that it listens, so that what follows is told by it and by nothing else."""
    marker = running.tree.root / "probe-linux-amd64-0.0.1.zip"
    async with asyncio.timeout(GENEROUS):
        while marker.name not in codes(running.result):
            marker.write_bytes(b"")
            await asyncio.sleep(0.05)
    marker.unlink()
    await running.until(lambda: marker.name not in codes(running.result))


def silent(*_: object, stop_event: Any, **__: object) -> Iterator[set[Any]]:
    """Tell nothing, like a network file system."""
    while not stop_event.wait(0.1):
        yield set()
