"""Waiting on the event loop: a while, or for the first of several things."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait for so many seconds, or until ``stop`` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def first_of(*waits: Coroutine[Any, Any, Any], seconds: float | None = None) -> None:
    """Return when one of these ends, at the latest after so many seconds; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
