"""One agent at a time on one machine (FR-UPD-009, NFR-REL-005)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.codes import Code
from agent.errors import AgentError, LocalFailure, local_failure
from agent.platform.files import FILES


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold the lock, which the kernel frees at any end of this process.

    Raises ``AgentError(BUSY)`` at once when another process has it, ``LocalFailure`` if there can be no lock.
    """
    try:
        descriptor = FILES.open(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise local_failure(error, f"open the lock {path}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LocalFailure(Code.IO, f"cannot lock {path}: it is not a regular file; remove it, and try again")
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
