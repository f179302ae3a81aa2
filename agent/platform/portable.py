"""Runs hooks and health commands to their end where there are no pidfds: on macOS and Windows (L43, L44).

What a program writes goes through a pipe and only its end is kept, in memory, as on Linux.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from agent.platform.spoken import CHUNK, FLOOD_PAUSE, LastWords, resolve
from agent.ports import Finished

_REST_SECONDS = 1.0
"""How long the rest of an output is waited for: somebody who was not found may hold the pipe for ever."""


class Tether(Protocol):
    """What keeps a program and all that it starts together, so that nothing of it is left behind."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What ``Popen`` needs for it."""

    def tied(self, program: subprocess.Popen[bytes]) -> AbstractContextManager[None]:
        """Tie a program that has just been started; at the end all of it is ended. Raises ``OSError``."""


class SessionTether:
    """A POSIX session: what leaves it, with ``setsid``, is not found.

    A guard waits at a pipe for the agent's end: when the agent is killed, it ends the session in its place.
    """

    options: Mapping[str, Any] = {"start_new_session": True, "umask": 0o022}
    guard: Sequence[str] = ("/bin/sh", "-c", 'read -r group && { read -r _; kill -KILL -- "-$group"; }')

    @contextmanager
    def tied(self, program: subprocess.Popen[bytes]) -> Iterator[None]:
        """End the session's process group at the end, be it ours or that of the agent."""
        guard = subprocess.Popen(  # noqa: S603 -- a fixed program
            self.guard,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,
        )
        assert guard.stdin is not None  # noqa: S101 -- a pipe was asked for
        try:
            with suppress(BrokenPipeError):
                guard.stdin.write(b"%d\n" % program.pid)
                guard.stdin.flush()
            yield
        finally:
            # First: it must not kill a group that got the number later.
            guard.kill()
            guard.wait()
            with suppress(BrokenPipeError):
                guard.stdin.close()
            _end_group(program.pid)


def _end_group(leader: int) -> None:
    # No other group gets this number while anybody is in it, also after its leader has been reaped.
    if sys.platform != "win32":
        import signal

        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


class PortablePrograms:
    """The ``Programs`` port. A program and all that is tied to it end with the agent as well."""

    def __init__(self, environment: Mapping[str, str], tether: Tether) -> None:
        self._environment = environment
        self._tether = tether

    def run(self, command: Sequence[str], folder: Path, facts: dict[str, str], timeout: float) -> Finished:
        """Run to the end or until ``timeout`` seconds are over; what it started ends with it."""
        program = subprocess.Popen(  # noqa: S603 -- a command of a package that release keys signed
            resolve(command, folder),
            cwd=folder,
            env={**self._environment, **facts},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            **self._tether.options,
        )
        listener = _Listener(program)
        exit_code = None
        try:
            with self._tether.tied(program), suppress(subprocess.TimeoutExpired):
                exit_code = program.wait(timeout)
        except BaseException:
            program.kill()
            raise
        finally:
            program.wait()
            said = listener.rest()
        return Finished(exit_code, said)


class _Listener:
    """Reads a program's output beside it: no call waits for a pipe and for a process on both systems."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        assert program.stdout is not None  # noqa: S101 -- a pipe was asked for
        self._pipe = program.stdout
        self._said = LastWords()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def rest(self) -> str:
        """Return the end of what was said, when the program has ended."""
        self._ended.set()
        self._thread.join(_REST_SECONDS)
        if not self._thread.is_alive():
            self._pipe.close()
        return self._said.text()

    def _listen(self) -> None:
        while chunk := os.read(self._pipe.fileno(), CHUNK):
            self._said.add(chunk)
            if self._said.is_flood:
                # So that it waits instead of us.
                self._ended.wait(FLOOD_PAUSE)
