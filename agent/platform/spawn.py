"""Starts the agent's own commands as children of the daemon. Standard library only, and little of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn


def spawn_agent(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start ``commandit-updater`` with arguments and return the process id; raise ``OSError``."""
    return os.posix_spawn(sys.executable, agent_command(arguments), dict(environment), setsigmask=[])


def become_agent(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by a fresh ``commandit-updater``; raise ``OSError``."""
    os.execv(sys.executable, agent_command(arguments))  # noqa: S606 -- ourselves


def agent_command(arguments: Sequence[str] = ()) -> list[str]:
    """Return the command line of this very agent."""
    frozen = getattr(sys, "frozen", False)
    return [sys.executable, *([] if frozen else ["-m", "agent"]), *arguments]
