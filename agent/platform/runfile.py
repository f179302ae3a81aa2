"""``run/<component>.json``: which process is a component's. Standard library only, for the daemon reads it, too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunFile:
    """One launch of a component's program. It stays when the program ends, and goes when it is stopped."""

    component: str
    token: str
    boot: str
    """The boot that pid and start time belong to."""
    pid: int | None = None
    """``None``: it is just being started."""
    ticks: int | None = None
    """Its start time, in clock ticks since boot; ``None``: it had ended before that could be read."""


def read_run_file(path: Path) -> RunFile | None:
    """Read a run file; one that is not there, or not readable as one, is none.

    A damaged one is harmless: the component counts as not started, and is started again.
    """
    try:
        raw = json.loads(path.read_bytes())
        state = RunFile(**raw)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    numbers = all(value is None or isinstance(value, int) for value in (state.pid, state.ticks))
    texts = all(isinstance(value, str) for value in (state.component, state.token, state.boot))
    return state if numbers and texts and state.component == path.stem else None


def read_run_files(folder: Path) -> list[RunFile]:
    """Read all run files of a folder, by component."""
    found = (read_run_file(path) for path in sorted(folder.glob("*.json")))
    return [state for state in found if state is not None]
