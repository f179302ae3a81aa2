"""This machine as the agent finds it: clocks, chance, system and environment."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent.bundle import own_version, program_path
from agent.config import as_environment
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


def the_world(flags: Mapping[str, Any] = {}) -> World:
    """Return this machine, in real time and by real chance; ``flags`` override the configuration."""
    return World(
        clock=SystemClock(),
        random=secrets.SystemRandom().random,
        new_id=lambda: str(uuid.uuid4()),
        platform=this_platform(),
        version=own_version(),
        environment=program_environment(os.environ),
        program=program_path(os.environ),
        overrides=as_environment(os.environ, flags),
    )
