"""Runs the agent with its calls recorded, without a fault: ``recorded_agent.py ROOT FILE [the agent's arguments]``.

``FILE`` gets the names of the calls as JSON. Started from the folder ``tests``, or with it in PYTHONPATH.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from crash.bench import LOG
from crash.recorder import Recorder
from crash.tap import Tap

from agent.cli import commands


def main() -> None:
    """Run the agent, and tell what it called."""
    root, file = Path(sys.argv[1]), Path(sys.argv[2])
    recorder = Recorder(str(root), lambda inode: inode)
    write = file.open("w")
    Tap(root, LOG, recorder=recorder, flush=True).install()
    try:
        commands(["--root-dir", str(root), *sys.argv[3:]], "commandit-updater")
    finally:
        write.write(json.dumps([call.name for call in recorder.calls]))
        write.close()


if __name__ == "__main__":
    main()
