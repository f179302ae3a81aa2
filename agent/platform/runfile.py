"""``run/<component>.json``: which process is a component's. Standard library only, for the daemon reads it, too."""

from __future__ import annotations

import json
from pathlib import Path

MAX_BYTES = 64 * 1024


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

    Nothing rests on it alone: what a component runs is found without it as well (``process.py``).
    """
    if not path.is_file():
        # Nor a FIFO, which would hold up whoever opens it.
        return None
    try:
        with path.open("rb") as file:
            raw = json.loads(file.read(MAX_BYTES))
        state = RunFile(**raw)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    numbers = all(value is None or isinstance(value, int) for value in (state.pid, state.ticks))
    texts = all(isinstance(value, str) for value in (state.component, state.token, state.boot))
    return state if numbers and texts and state.component == path.stem else None


def read_run_files(folder: Path) -> list[RunFile]:
    """Read all run files of a folder, by component.

    A damaged one stands for a launch of no boot: its program should run, and whoever starts it finds what does.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        state = read_run_file(path)
        if state is None and path.is_file() and path.stem.isidentifier():
            state = RunFile(path.stem, "", "")
        if state is not None:
            found.append(state)
    return found
