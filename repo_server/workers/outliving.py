"""Workers that a killed main process left: ended before another server touches what they use.

Their spools and audit files are about to be opened by others, and some may still listen. All workers of a server hold
one lock, which each inherits from the moment it is started, so that none can be missed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from repo_server.statefolder import StateInUse, locked

NAME = "workers.lock"
PATIENCE_SECONDS = 2.0
"""They noticed, and are answering what has come in; agents go on with a download that is cut."""
_END_SECONDS = 10.0
_PAUSE_SECONDS = 0.02

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def outliving(state: Path) -> Iterator[int]:
    """Hold the lock that workers inherit, and give its descriptor; raise ``StateInUse`` if others keep it.

    Called by who holds the state folder: whoever has this lock then is left over. They get ``PATIENCE_SECONDS``.
    """
    path = state / NAME
    with contextlib.ExitStack() as stack:
        descriptor = _taken(path, stack, PATIENCE_SECONDS)
        if descriptor is None:
            for pid in holders(path):
                _log.warning("ending process %d, a worker that an earlier repo-server left on %s", pid, state)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            descriptor = _taken(path, stack, _END_SECONDS)
        if descriptor is None:
            raise StateInUse(f"workers of an earlier repo-server still use {state}; end them")
        yield descriptor


def holders(path: Path) -> list[int]:
    """Return the other processes that have a file open; none where the system does not show them."""
    wanted, found = path.stat(), []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for link in (process / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if int(process.name) != os.getpid() and os.path.samestat(link.stat(), wanted):
                        found.append(int(process.name))
                        break
    return found


def _taken(path: Path, stack: contextlib.ExitStack, seconds: float) -> int | None:
    """Take the lock, within so many seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            return stack.enter_context(locked(path))
        except StateInUse:
            if time.monotonic() > end:
                return None
            time.sleep(_PAUSE_SECONDS)
