"""Where a process has its catalogue from: its own look at the tree, or the main process (``workers``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

from repo_server.supervise import Tasks
from repo_server.telemetry.conditions import Conditions
from repo_server.tree.live import Live, Snapshot
from repo_server.tree.scan import Scanner
from repo_server.tree.watch import Watcher, WatchOptions
from repo_server.tree.whole import WHOLE_TREE, WholeTree


class Feed(Protocol):
    """Keeps a live catalogue."""

    @property
    def live(self) -> Live:
        """The catalogue."""

    @property
    def looked(self) -> asyncio.Event:
        """Set once there is one."""

    def start(self, tasks: Tasks, stop: asyncio.Event) -> None:
        """Keep it up to date until ``stop`` is set."""

    def request_rescan(self, path: str | None) -> None:
        """Have a path looked at, or with ``None`` everything. From any thread."""

    async def close(self) -> None:
        """Let go, once its tasks have ended."""


@dataclass(slots=True)
class TreeFeed:
    """Looks at the tree itself; of all processes of a server exactly one does (L7)."""

    scanner: Scanner
    watcher: Watcher
    live: Live
    looked: asyncio.Event

    @classmethod
    def of(
        cls,
        scanner: Scanner,
        options: WatchOptions,
        clock: Callable[[], datetime],
        on_change: Collection[Callable[[Snapshot], None]] = (),
    ) -> TreeFeed:
        """Put it together; nothing is touched before ``start``."""
        live, looked = Live(), asyncio.Event()
        followers = [lambda _: looked.set(), *on_change]
        return cls(scanner, Watcher(scanner, live, options, clock, followers), live, looked)

    def watch(self, conditions: Conditions) -> None:
        """Have it said when the tree as a whole is not as it should be; the last good catalogue stays in force."""
        whole = WholeTree(self.live)
        for code in WHOLE_TREE:
            conditions.watch(code, partial(whole.symptom, code))
        conditions.watch("scan_fails", lambda: self.watcher.failing)
        conditions.watch("tree_not_watched", lambda: self.watcher.unwatched)

    def start(self, tasks: Tasks, stop: asyncio.Event) -> None:
        """Watch the tree until ``stop`` is set."""
        tasks.start("watching the tree", self.watcher.run(stop))

    def request_rescan(self, path: str | None) -> None:
        """Look at a path soon, or at everything. From any thread."""
        self.watcher.request_rescan(path)

    async def close(self) -> None:
        """Save what was found out."""
        await asyncio.to_thread(self.scanner.close)
