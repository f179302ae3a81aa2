"""Runs hooks and health commands to their end, within a time limit (L43, L44).

What a program writes goes through a pipe and only its end is kept, in memory: a program that never stops writing costs
no disk, and is slowed down. All that a program starts carries a token of that run in its environment, also what leaves
its session; it ends with the program. What clears its environment *and* leaves the session is not found.
"""

from __future__ import annotations

import sys

if not sys.platform.startswith("linux"):
    raise ImportError(f"these are programs as Linux keeps them together; expected another adapter on {sys.platform}")

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.linux import die_with_parent
from agent.platform.proc import end_holders, start_ticks
from agent.platform.spoken import CHUNK, FLOOD_BYTES, FLOOD_PAUSE, LastWords, resolve
from agent.ports import Finished

FORCE_SECONDS = 10.0
"""How long the kernel may take to end what was killed."""
RUN_VARIABLE = "COMMANDIT_RUN"


class LocalPrograms:
    """The ``Programs`` port: each program in its own session, with an environment of ours only."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def run(self, command: Sequence[str], folder: Path, facts: dict[str, str], timeout: float) -> Finished:
        """Run to the end or until ``timeout`` seconds are over; what it started ends with it.

        Raises ``OSError``, or ``AgentError(STOP_FAILED)`` if something of it cannot be killed.
        """
        deadline = time.monotonic() + timeout
        token = f"{os.getpid()}.{start_ticks(os.getpid())}.{time.monotonic_ns()}"
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        output = _Output(read)
        try:
            # The program's end blocks, as programs expect it; that is a property of each end.
            os.set_blocking(write, True)
            try:
                program = self._start(command, folder, {**facts, RUN_VARIABLE: token}, write)
            finally:
                os.close(write)
            try:
                in_time = output.read_until_end_of(program.pid, deadline)
            finally:
                exit_code = _end(program, f"{RUN_VARIABLE}={token}".encode())
            output.read_rest()
        finally:
            os.close(read)
        return Finished(exit_code if in_time else None, output.said.text())

    def _start(
        self, command: Sequence[str], folder: Path, facts: dict[str, str], output: int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 -- a command of a package that release keys signed
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


class _Output:
    """The end of what comes out of a pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.said = LastWords()

    def read_until_end_of(self, pid: int, deadline: float) -> bool:
        """Read until a child that nobody has reaped ends; return ``False`` if it does not until the deadline.

        A grandchild that holds the pipe open does not hold us up.
        """
        descriptor = os.pidfd_open(pid)
        try:
            end, either = select.poll(), select.poll()
            end.register(descriptor, select.POLLIN)
            either.register(descriptor, select.POLLIN)
            either.register(self._pipe, select.POLLIN)
            while (left := deadline - time.monotonic()) > 0:
                ready = dict(either.poll(left * 1000))
                if descriptor in ready:
                    return True
                if self._pipe in ready and not self._read():
                    # It closed its output; the pipe would be ready for ever.
                    either.unregister(self._pipe)
                if self.said.is_flood and end.poll(min(FLOOD_PAUSE, left) * 1000):
                    return True
            return bool(end.poll(0))
        finally:
            os.close(descriptor)

    def read_rest(self) -> None:
        """Read what is in the pipe, once: somebody who was not found may go on writing."""
        for _ in range(FLOOD_BYTES // CHUNK):
            if not self._read():
                return

    def _read(self) -> bool:
        try:
            chunk = os.read(self._pipe, CHUNK)
        except BlockingIOError:
            return False
        self.said.add(chunk)
        return bool(chunk)


def _end(program: subprocess.Popen[bytes], marker: bytes) -> int:
    """Kill a program with all that carries its token; return its exit code. Raise ``AgentError(STOP_FAILED)``."""
    try:
        # Not reaped yet, so its id is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(program.pid, signal.SIGKILL)
        left = end_holders(marker, program.pid, FORCE_SECONDS)
    finally:
        exit_code = program.wait()
    if left:
        raise AgentError(
            Code.STOP_FAILED,
            f"processes {left}, started by {program.args!r}, are still there {FORCE_SECONDS:.0f} s after SIGKILL; "
            "see their state with ps",
        )
    return exit_code
