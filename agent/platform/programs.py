"""Runs hooks and health commands to their end, within a time limit (L43, L44)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.platform.linux import die_with_parent
from agent.platform.proc import wait_child
from agent.ports import Finished

TAIL_BYTES = 2000


class LocalPrograms:
    """The ``Programs`` port: each program in its own session, with an environment of ours only."""

    def __init__(self, environment: Mapping[str, str], scratch: Path) -> None:
        self._environment = environment
        self._scratch = scratch
        """A private folder for the output while a program runs."""

    def run(self, command: Sequence[str], folder: Path, facts: dict[str, str], timeout: float) -> Finished:
        """Run to the end or until ``timeout`` seconds are over; what it started in its session ends with it."""
        # A file and not a pipe: a grandchild that keeps a pipe open would hold us up after the program has ended.
        with tempfile.TemporaryFile(dir=self._scratch) as output:
            program = subprocess.Popen(  # noqa: S603 -- a command of a package that release keys signed
                resolve(command, folder),
                cwd=folder,
                env={**self._environment, **facts},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=0o022,
                preexec_fn=die_with_parent,  # noqa: PLW1509 -- a cycle has one thread
            )
            try:
                in_time = wait_child(program.pid, timeout)
            finally:
                # Not reaped yet, so its id is still its own.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(program.pid, signal.SIGKILL)
                exit_code = program.wait()
            output.seek(max(0, output.seek(0, os.SEEK_END) - TAIL_BYTES))
            return Finished(exit_code if in_time else None, output.read().decode(errors="replace").strip())


def resolve(command: Sequence[str], folder: Path) -> list[str]:
    """Return a command whose program is the folder's own where it has it, else the system's."""
    own = folder / command[0]
    return [str(own) if own.exists() else command[0], *command[1:]]


def tail(path: Path, start: int = 0) -> str:
    """Return the end of a file from ``start`` on, "" if it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def open_private(path: Path, flags: int) -> int:
    """Open a file that only its owner may read."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
