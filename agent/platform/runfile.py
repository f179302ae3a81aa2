"""``run/<component>.json``: which process is a component's. Standard library only, for the daemon reads it, too."""

from __future__ import annotations

import json
from pathlib import Path


class RunFile:
    """One launch of a component's program. It stays when the program ends, and goes when it is stopped.

    ``boot`` is the boot that the other two belong to; ``pid`` is ``None`` while it is being started; ``ticks`` is its
    start time in clock ticks since boot, ``None`` if it had ended before that could be read.
    """

    # Not a dataclass: that module alone would cost the daemon as much memory as everything in here.
    __slots__ = ("boot", "component", "pid", "ticks", "token")

    def __init__(self, component: str, token: str, boot: str, pid: int | None = None, ticks: int | None = None) -> None:
        self.component = component
        self.token = token
        self.boot = boot
        self.pid = pid
        self.ticks = ticks

    def to_json(self) -> dict[str, str | int | None]:
        """Return what the file says."""
        return {name: getattr(self, name) for name in self.__slots__}


def read_run_file(path: Path) -> RunFile | None:
    """Read a run file; one that is not there, or not readable as one, is none.

    A damaged one is harmless: the component counts as not started, and is started again.
    """
    if not path.is_file():
        # Nor a FIFO, which would hold up whoever opens it.
        return None
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
