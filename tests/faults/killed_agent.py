"""Runs the agent and kills it right before its N-th change to the machine.

``killed_agent.py N COUNT_FILE [the agent's arguments]``. A change is whatever Python's audit events call so: files
opened for writing, renamed, removed, folders made, modes and owners set, programs started, signals sent, folders
exchanged. With N = 0 it only counts. The product has no code for this.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

CHANGES = frozenset({
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.truncate", "os.utime", "os.link",
    "os.symlink", "os.kill", "os.killpg", "subprocess.Popen", "agent.exchange",
})  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Killer:
    """Counts changes, and ends the process without warning at the chosen one."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        is_change = event in CHANGES
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            # The log is no state: nothing reads it.
            is_change = not str(arguments[0]).endswith((".log", "/dev/null"))
        if not is_change:
            return
        self.count += 1
        if self.count == self.at:
            self.at = -1
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the agent with the killer behind it."""
    at, count_file = int(sys.argv[1]), Path(sys.argv[2])
    sys.argv[1:3] = []
    # A file of byte code that is written once would be a change that comes once.
    sys.dont_write_bytecode = True
    from agent.cli import commands

    killer = Killer(at)
    sys.addaudithook(killer)
    try:
        commands()
    finally:
        killer.at = -1
        count_file.write_text(str(killer.count))


if __name__ == "__main__":
    main()
