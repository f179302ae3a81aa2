"""This machine as the agent finds it: clocks, chance, system and environment."""

from __future__ import annotations

import importlib.metadata
import secrets
import time
import uuid
from datetime import UTC, datetime

from agent.endpoint import World
from agent.platform.detect import this_platform

SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock's time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock's time."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def the_world() -> World:
    """Return this machine, in real time and by real chance."""
    try:
        version = importlib.metadata.version("commandit-updates")
    except importlib.metadata.PackageNotFoundError:
        version = "0.0.0"
    return World(
        clock=SystemClock(),
        random=secrets.SystemRandom().random,
        new_id=lambda: str(uuid.uuid4()),
        platform=this_platform(),
        version=version,
        environment={"PATH": SAFE_PATH, "LANG": "C.UTF-8", "HOME": "/"},
    )
