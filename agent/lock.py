"""One agent at a time on one machine (FR-UPD-009, NFR-REL-005)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from agent.codes import Code
from agent.errors import AgentError, local_failure
from agent.platform.files import FILES


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold the lock; raise ``AgentError(BUSY)`` at once when another process has it. The kernel frees it at any end."""
    try:
        descriptor = FILES.open(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise local_failure(error, f"open the lock {path}") from error
    try:
        try:
            FILES.lock(descriptor, wait=False)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            who = f"process {holder}" if holder.isdigit() else "another updater"
            raise AgentError(Code.BUSY, f"{who} is at work and holds {path}; wait for it and try again") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
