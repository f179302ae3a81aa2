"""Background tasks that do not vanish: one that fails takes the server down, in order and with a reason."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from repo_server.waiting import pause

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tasks:
    """The server's own tasks. ``failed`` names the first that ended with an error."""

    on_failure: Callable[[], None]
    failed: str | None = None
    _running: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run something until it ends by itself; if it ends with an error, say so and call ``on_failure``."""
        self._running.append(asyncio.create_task(self._watched(name, work), name=name))

    async def _watched(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 -- whatever it is, it must not vanish with its task
            _log.critical("%s failed, so the server stops", name, exc_info=True)
            self.failed = self.failed or name
            self.on_failure()

    async def finish(self, seconds: float) -> None:
        """Wait for the tasks, which have been told to stop; cancel those that do not."""
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=seconds)
        for task in late:
            _log.warning("%s did not stop within %.0f s and is cancelled", task.get_name(), seconds)
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=seconds)


async def regularly(seconds: float, stop: asyncio.Event, work: Callable[[], None]) -> None:
    """Do something quick on the event loop again and again until ``stop`` is set."""
    while not stop.is_set():
        work()
        await pause(stop, seconds)


async def every(seconds: float, stop: asyncio.Event, work: Callable[[], None]) -> None:
    """Do something in a worker thread again and again until ``stop`` is set."""
    while not stop.is_set():
        await asyncio.to_thread(work)
        await pause(stop, seconds)
