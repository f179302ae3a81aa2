"""One agent at a time on one machine (FR-UPD-009, NFR-REL-005)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.codes import Code
from agent.errors import AgentError, local_failure


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold the lock; raise ``AgentError(BUSY)`` at once when another process has it. The kernel frees it at any end."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise local_failure(error, f"open the lock {path}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            who = f"process {holder}" if holder.isdigit() else "another updater"
            raise AgentError(Code.BUSY, f"{who} is at work and holds {path}; wait for it and try again") from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
