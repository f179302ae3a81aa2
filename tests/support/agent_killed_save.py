"""Run as a program: saves a state file again and again, each time killed one step later, and checks what is left.

``agent_killed_save.py FOLDER`` prints the number of kills. A step is a line of ``agent.durable`` or a call that the
interpreter audits (open, rename, remove, chmod, …); the child that makes the step dies by SIGKILL just before it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from agent import durable

AUDITED = {"open", "os.rename", "os.remove", "os.chmod", "os.link", "os.truncate", "tempfile.mkstemp"}
OLD, NEW = {"state": "old", "n": [1, 2]}, {"state": "new", "n": [3]}


class Killer:
    """Kills its own process at the ``at``-th step."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != durable.__file__:
            return None
        if event == "line":
            self.step()
        return self.trace

    def audit(self, event: str, _: Any) -> None:
        if event in AUDITED:
            self.step()


def died(path: Path, at: int) -> bool:
    """Save in a child that dies at a step; return whether it died before it was done."""
    child = os.fork()
    if child == 0:
        killer = Killer(at)
        sys.addaudithook(killer.audit)
        sys.settrace(killer.trace)
        durable.save(path, NEW)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def main(folder: Path) -> int:
    path = folder / "state.json"
    kills, seen = 0, set()
    while True:
        durable.remove(path)
        durable.save(path, {"state": "older"})
        durable.save(path, OLD)
        killed = died(path, kills)
        loaded = durable.load(path)
        assert loaded.damage is None, loaded
        assert loaded.payload in ([OLD, NEW] if killed else [NEW]), loaded
        seen.add(str(loaded.payload))
        previous = durable.load(durable.previous_of(path), fall_back=False)
        assert previous.payload is not None, previous
        durable.sweep(folder)
        assert {item.name for item in folder.iterdir()} == {"state.json", "state.json.prev"}
        if not killed:
            break
        kills += 1
    assert len(seen) == 2
    return kills


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))  # noqa: T201 -- its result
