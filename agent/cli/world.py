"""This machine as the agent finds it: clocks, chance, system and environment."""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import time
import uuid
from datetime import UTC, datetime

from agent.endpoint import World
from agent.platform.detect import this_platform
from agent.platform.places import program_environment


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
        environment=program_environment(os.environ),
    )
