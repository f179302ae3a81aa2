"""Runs hooks and health commands to their end where there are no pidfds: on macOS and Windows (L43, L44)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from agent.platform.programs import TAIL_BYTES, resolve
from agent.ports import Finished


class Tether(Protocol):
    """What keeps a program and all that it starts together, so that nothing of it is left behind."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What ``Popen`` needs for it."""

    def tied(self, program: subprocess.Popen[bytes]) -> AbstractContextManager[None]:
        """Tie a program that has just been started; at the end all of it is ended. Raises ``OSError``."""


class SessionTether:
    """A POSIX session: what leaves it, with ``setsid``, is not found."""

    options: Mapping[str, Any] = {"start_new_session": True, "umask": 0o022}

    @contextmanager
    def tied(self, program: subprocess.Popen[bytes]) -> Iterator[None]:
        """End the session's process group at the end."""
        try:
            yield
        finally:
            # No other group gets this number while anybody is in it, also after its leader has been reaped.
            if sys.platform != "win32":
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(program.pid, signal.SIGKILL)


class PortablePrograms:
    """The ``Programs`` port. Where the agent itself is killed, it depends on the tether what becomes of a program."""

    def __init__(self, environment: Mapping[str, str], scratch: Path, tether: Tether) -> None:
        self._environment = environment
        self._scratch = scratch
        """A private folder for the output while a program runs."""
        self._tether = tether

    def run(self, command: Sequence[str], folder: Path, facts: dict[str, str], timeout: float) -> Finished:
        """Run to the end or until ``timeout`` seconds are over; what it started ends with it."""
        # A file and not a pipe: a grandchild that keeps a pipe open would hold us up after the program has ended.
        with tempfile.TemporaryFile(dir=self._scratch) as output:
            program = subprocess.Popen(  # noqa: S603 -- a command of a package that release keys signed
                resolve(command, folder),
                cwd=folder,
                env={**self._environment, **facts},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **self._tether.options,
            )
            exit_code = None
            try:
                with self._tether.tied(program), suppress(subprocess.TimeoutExpired):
                    exit_code = program.wait(timeout)
            except BaseException:
                program.kill()
                raise
            finally:
                program.wait()
            output.seek(max(0, output.seek(0, os.SEEK_END) - TAIL_BYTES))
            return Finished(exit_code, output.read().decode(errors="replace").strip())
