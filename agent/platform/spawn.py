"""Starts the agent's own commands as children of the daemon. Standard library only, and little of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from agent.platform.resident import Child


def spawn_agent(arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Start ``commandit-updater`` with arguments; raise ``OSError``."""
    return Child(agent_command(arguments), environment)


def become_agent(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by a fresh ``commandit-updater``; raise ``OSError``."""
    if sys.platform == "win32":
        # There, execv starts another process and ends this one, and whoever waits for us goes on.
        import subprocess

        raise SystemExit(subprocess.call(agent_command(arguments)))  # noqa: S603 -- ourselves
    os.execv(sys.executable, agent_command(arguments))  # noqa: S606 -- ourselves


def agent_command(arguments: Sequence[str] = ()) -> list[str]:
    """Return the command line of this very agent."""
    frozen = getattr(sys, "frozen", False)
    return [sys.executable, *([] if frozen else ["-m", "agent"]), *arguments]
