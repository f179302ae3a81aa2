"""Starts the agent's own commands as children of the daemon. Standard library only, and little of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from agent.platform.resident import Child

TYPE_CHECKING = False
"""Not imported: the module typing would stay in an idle agent's memory (NFR-PER-001)."""
if TYPE_CHECKING:
    from typing import NoReturn

PROGRAM_VARIABLE = "COMMANDIT_PROGRAM"
"""Set by a launcher that starts the agent from a Python environment: its own path, by which it is started again."""
_LIBRARY_PATH = "LD_LIBRARY_PATH"


def spawn_agent(arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Start ``commandit-updater`` with arguments; raise ``OSError``."""
    return Child(agent_command(arguments, environment), _clean(environment))


def become_agent(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by a fresh ``commandit-updater``; raise ``OSError``."""
    command = agent_command(arguments, environment)
    if sys.platform == "win32":
        # There, execv starts another process and ends this one, and whoever waits for us goes on.
        import subprocess

        raise SystemExit(subprocess.call(command, env=_clean(environment)))  # noqa: S603 -- ourselves
    os.execve(command[0], command, _clean(environment))  # noqa: S606 -- ourselves


def agent_command(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the command line of this very agent."""
    program = own_program(environment)
    return [*([sys.executable, "-m", "agent"] if program is None else [program]), *arguments]


def own_program(environment: Mapping[str, str]) -> str | None:
    """Return the path of the program that this agent was started as; ``None``: a Python environment."""
    if getattr(sys, "frozen", False):
        return sys.executable
    return environment.get(PROGRAM_VARIABLE)


class Successor:
    """Whether another program lies now where this agent was started from: a self-update (FR-SUP-001)."""

    __slots__ = ("_path", "_was")

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._was = self._identity()

    def is_there(self) -> bool:
        """Return whether it is; while nothing at all is there, it is not."""
        return self._identity() not in {None, self._was}

    def _identity(self) -> tuple[int, ...] | None:
        try:
            found = None if self._path is None else os.stat(self._path)  # noqa: PTH116 -- no pathlib in the daemon
        except OSError:
            return None
        return None if found is None else (found.st_dev, found.st_ino, found.st_mtime_ns)


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what a bundle's loader put there for itself: another bundle would take it."""
    kept = {name: value for name, value in environment.items() if not name.startswith("_PYI_")}
    if len(kept) != len(environment):
        before = kept.pop(f"{_LIBRARY_PATH}_ORIG", None)
        kept.pop(_LIBRARY_PATH, None)
        kept |= {} if before is None else {_LIBRARY_PATH: before}
    return kept
