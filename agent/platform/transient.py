"""Leaves a service that is about to be stopped: what systemd stops with a unit, it stops whoever started it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.unitfile import is_components

_SERVICE = re.compile(r"/([^/\n]+\.service)(?=[/\n]|$)")
_UNITS = Path("/etc/systemd/system")


def component_service(groups: str, units: Path = _UNITS) -> str | None:
    """Return the unit that a process belongs to, by the list of its control groups, if it is that of a component."""
    for name in _SERVICE.findall(groups):
        with contextlib.suppress(OSError):
            if is_components(units / name):
                return str(name)
    return None


def leave_for_unit(command: Sequence[str], environment: Mapping[str, str], path: str) -> NoReturn:
    """Replace this process by one that waits for ``command`` in a unit of its own, with the same output and end.

    ``environment``: what the command gets beside systemd's own. Raises ``AgentError(NOT_SUPPORTED)``, ``OSError``.
    """
    program = shutil.which("systemd-run", path=path)
    if program is None:
        raise AgentError(Code.NOT_SUPPORTED, f"there is no systemd-run in {path}; expected a machine that systemd runs")
    settings = [f"--setenv={name}={value}" for name, value in environment.items()]
    # What is stopped with the caller is systemd-run alone. Components that the agent starts itself stay, too.
    options = ["--quiet", "--collect", "--wait", "--pipe", "--property=KillMode=process", "--property=UMask=0077"]
    os.execv(program, [program, *options, *settings, "--", *command])  # noqa: S606 -- ourselves, elsewhere
