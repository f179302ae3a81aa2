"""Runs hooks and health commands to their end where there are no pidfds: on macOS and Windows (L43, L44).

What a program writes goes through a pipe and only its end is kept, in memory, as on Linux.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, Self

from agent.platform.spoken import CHUNK, FLOOD_PAUSE, LastWords, resolve
from agent.ports import Finished

_REST_SECONDS = 1.0
"""How long the rest of an output is waited for: somebody who was not found may hold the pipe for ever."""


class Tether(Protocol):
    """What keeps a program and all that it starts together, so that nothing of it is left behind."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What ``Popen`` needs for it."""

    def ready(self) -> AbstractContextManager[Callable[[subprocess.Popen[bytes]], None]]:
        """Give what ties a program that has just been started; at the end all of it is ended. Both raise ``OSError``.

        Everything that takes time is done before the program starts: untied, it could outlive a killed agent.
        """


class SessionTether:
    """A POSIX session: what leaves it, with ``setsid``, is not found.

    A guard waits at a pipe for the agent's end: when the agent is killed, it ends the session in its place.
    """

    options: Mapping[str, Any] = {"start_new_session": True, "umask": 0o022}
    guard: Sequence[str] = ("/bin/sh", "-c", 'read -r group && { read -r _; kill -s KILL -- "-$group"; }')

    @contextmanager
    def ready(self) -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
        """End the session's process group at the end, be it ours or that of the agent."""
        groups: list[int] = []
        guard = subprocess.Popen(  # noqa: S603 -- a fixed program
            self.guard,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={},
            start_new_session=True,
        )

        def tie(program: subprocess.Popen[bytes]) -> None:
            groups.append(program.pid)
            if guard.stdin is not None:
                with suppress(BrokenPipeError):
                    guard.stdin.write(b"%d\n" % program.pid)

        with guard:
            try:
                yield tie
            finally:
                # First: it must not kill a group that got the number later.
                guard.kill()
                guard.wait()
                for group in groups:
                    _end_group(group)


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
        with _Listener() as listener:
            with self._tether.ready() as tie:
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
                listener.listen_to(program)
                exit_code = _run_to_end(program, tie, timeout)
            listener.read_rest()
        return Finished(exit_code, listener.said.text())


def _run_to_end(
    program: subprocess.Popen[bytes], tie: Callable[[subprocess.Popen[bytes]], None], timeout: float
) -> int | None:
    try:
        tie(program)
        with suppress(subprocess.TimeoutExpired):
            return program.wait(timeout)
        return None
    finally:
        program.kill()
        program.wait()


class _Listener:
    """Reads a program's output beside it: no call waits for a pipe and for a process on both systems."""

    def __init__(self) -> None:
        self.said = LastWords()
        self._ended = threading.Event()
        self._pipe: IO[bytes] | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pipe is not None:
            self.read_rest()
            if not self._thread.is_alive():
                self._pipe.close()

    def listen_to(self, program: subprocess.Popen[bytes]) -> None:
        """Begin."""
        self._pipe = program.stdout
        self._thread.start()

    def read_rest(self) -> None:
        """Wait for the rest, when the program has ended."""
        self._ended.set()
        self._thread.join(_REST_SECONDS)

    def _listen(self) -> None:
        while self._pipe is not None and (chunk := os.read(self._pipe.fileno(), CHUNK)):
            self.said.add(chunk)
            if self.said.is_flood:
                # So that it waits instead of us.
                self._ended.wait(FLOOD_PAUSE)
