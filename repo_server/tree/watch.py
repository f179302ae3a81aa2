"""Keeps the live catalogue up to date: listens for changes, and looks at everything again and again (design §2).

The listener is a hint. Nothing depends on it but speed: a full scan runs every ``rescan_seconds`` (L30), and whatever
goes wrong is logged and tried again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any, Literal

import watchfiles

from repo_server.tree.differences import Difference, differences
from repo_server.tree.digests import HashingStopped
from repo_server.tree.listen import Listener, Source
from repo_server.tree.live import Live, ScanResult, Snapshot
from repo_server.tree.scan import Scanner

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How a tree is watched; how often it is read whole stands in its ``repo.toml``."""

    poll: bool = False
    """For network file systems, which do not tell of changes that others make."""
    poll_seconds: float = 2.0
    patience_seconds: float = 0.05
    """How long a scan waits for digests before it goes on without: a promotion must not wait for a large file."""
    follow_up_seconds: float = 0.5
    """After a full scan because of new folders or a burst, another one: some of it may not have been told."""
    longest_pause_seconds: float = 30.0
    """Between attempts of a scan that fails; the first pause is a second."""
    source: Source = watchfiles.watch
    """Where changes come from; for tests of its failures."""


class Watcher:
    """Scans, replaces the live catalogue, and says in the log what changed."""

    def __init__(
        self,
        scanner: Scanner,
        live: Live,
        options: WatchOptions,
        clock: Callable[[], datetime],
        on_change: Collection[Callable[[Snapshot], None]] = (),
    ) -> None:
        """``on_change`` is called on the event loop with every new snapshot; an error in it is logged, no more."""
        self._scanner = scanner
        self._live = live
        self._options = options
        self._clock = clock
        self._on_change = tuple(on_change)
        self._guard = threading.Lock()
        self._paths: set[str] = set()
        self._everything = False
        self._paths_were_first = False
        self._wake: Callable[[], object] | None = None
        self._next_full = 0.0
        self._busy_since: float | None = None
        self._pause = 1.0
        self._listener: Listener | None = None
        self.failing: str | None = None
        """Why the last look at the tree came to nothing; ``None`` after one that did."""

    @property
    def unwatched(self) -> str | None:
        """Why nobody tells of changes now, which are then found late; ``None`` while somebody does."""
        return None if self._listener is None else self._listener.trouble

    def request_rescan(self, path: str | None) -> None:
        """Look at a path soon, or at everything: somebody found it other than the catalogue says. From any thread."""
        self._heard(None if path is None else {path})

    def busy_seconds(self) -> float:
        """For how long the present look has been running; the first one, which hashes everything, does not count."""
        since = self._busy_since
        return 0.0 if since is None or not self._live.ready else monotonic() - since

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until ``stop`` is set. Nothing in the tree or in the watching ends it."""
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._wake = lambda: loop.call_soon_threadsafe(woken.set)
        stopped = asyncio.create_task(stop.wait())
        stopped.add_done_callback(lambda _: woken.set())
        options = self._options
        listener = self._listener = Listener(
            self._scanner.root, self._heard, options.poll, int(options.poll_seconds * 1000), options.source
        )
        threads = ThreadPoolExecutor(1, thread_name_prefix="scan")
        listener.start()
        try:
            while not stop.is_set():
                self._busy_since = monotonic()
                await self._scan_once(threads, stopped)
                self._busy_since = None
                if not stop.is_set():
                    await self._rest(woken)
        finally:
            self._wake = None
            stopped.cancel()
            await asyncio.to_thread(listener.stop)
            threads.shutdown(wait=False)

    def _heard(self, paths: set[str] | None) -> None:
        with self._guard:
            if paths is None:
                self._everything = True
            else:
                self._paths |= paths
            wake = self._wake
        if wake is not None:
            wake()

    def _take(self) -> tuple[set[str], bool]:
        """Return what to look at: paths that were told, or everything.

        If both are due, the paths come first, for somebody waits for them, and then everything, whatever is told.
        """
        with self._guard:
            paths, self._paths = self._paths, set()
            everything = self._everything or monotonic() >= self._next_full
            first = everything and bool(paths) and self._live.ready and not self._paths_were_first
            self._everything = first
            self._paths_were_first = first
        return paths, everything and not first

    async def _rest(self, woken: asyncio.Event) -> None:
        """Wait until there is something to do: a change, a full scan, or a file that may have come to rest."""
        if self._everything:
            return
        wait = max(0.0, self._next_full - monotonic())
        look = self._scanner.next_look_seconds
        if look is not None:
            wait = min(wait, look)
        try:
            async with asyncio.timeout(wait):
                await woken.wait()
        except TimeoutError:
            return
        woken.clear()

    async def _scan_once(self, threads: ThreadPoolExecutor, stopped: asyncio.Future[Literal[True]]) -> None:
        """Scan in the worker thread and put the result in force; a failure is logged and tried again later."""
        paths, everything = self._take()
        before = self._live.current.result if self._live.ready else None
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(threads, self._scan, before, paths, everything)
        racing: list[asyncio.Future[Any]] = [work, stopped]
        await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            # Stopping: hashing may take minutes, and what is done of it is saved.
            await asyncio.to_thread(self._scanner.close)
        try:
            result, changes = await work
        except HashingStopped:
            return
        except Exception as error:  # noqa: BLE001 -- a scan that fails must not end the watching
            _log.exception("the scan failed; trying again in %.0f s", self._pause)
            self.failing = (
                f"a look at {self._scanner.root} failed, so the catalogue of the last one stays in force: "
                f"{type(error).__name__}: {error}"
            )
            self._next_full = monotonic() + self._pause
            self._pause = min(2 * self._pause, self._options.longest_pause_seconds)
            return
        self._pause = 1.0
        self.failing = None
        self._schedule(result, everything)
        self._announce(result, before, changes)

    def _scan(
        self, before: ScanResult | None, paths: set[str], everything: bool
    ) -> tuple[ScanResult, list[Difference]]:
        now = self._clock()
        if before is None:
            # The first result is complete: nothing may be decided about a tree of which half is unknown.
            result = self._scanner.full(now)
        elif everything:
            result = self._scanner.full(now, self._options.patience_seconds)
        else:
            result = self._scanner.update(paths, now, self._options.patience_seconds)
        return result, [] if result is before else differences(before, result)

    def _schedule(self, result: ScanResult, everything: bool) -> None:
        if everything:
            self._next_full = monotonic() + result.catalogue.config.rescan_seconds
        elif self._scanner.was_full:
            self._next_full = monotonic() + self._options.follow_up_seconds

    def _announce(self, result: ScanResult, before: ScanResult | None, changes: list[Difference]) -> None:
        snapshot = self._live.replace(result, self._clock())
        if snapshot.result is before:
            return
        for change in changes:
            level = logging.WARNING if change.serious else logging.INFO
            _log.log(level, "%s", change.message, extra={"event": change.event, **change.fields})
        for callback in self._on_change:
            try:
                callback(snapshot)
            except Exception:  # noqa: BLE001 -- nor must whoever follows it
                _log.exception("a follower of the catalogue failed at generation %d", snapshot.generation)
