"""Our programs, each run forked from a process that has imported them: importing takes longer than what most runs do.

Every run is a process of its own with its own arguments, environment, folder and descriptors, and ends as any other.
What depends on how Python itself starts is to be started as a program.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_AT_START = ("PYTHON", "LC_", "LANG")
"""Variables that Python itself reads when it starts."""
_LARGEST = 200_000
_FROM_OURS = 4
"""Descriptors that a run gets: input, output, errors, and where to tell how it ended."""


def run_prepared(
    entry: str,
    name: str,
    arguments: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: bytes = b"",
    timeout: float = 100.0,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, as ``subprocess.run`` does.

    ``entry``: its ``MODULE:FUNCTION``; modules that it imports later may stand before it.
    """
    words = [name, *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(stdin)
        files[0].seek(0)
        read, write = os.pipe()
        told = stack.enter_context(os.fdopen(read, "rb"))
        try:
            order = pickle.dumps((words, dict(env), str(cwd)))
            socket.send_fds(_prepared(entry)[0], [order], [*(file.fileno() for file in files), write])
        finally:
            os.close(write)
        code = _code(told.fileno(), words, timeout)
        for file in files:
            file.seek(0)
        return subprocess.CompletedProcess(words, code, files[1].read(), files[2].read())


def can_be_prepared(env: Mapping[str, str]) -> bool:
    """Whether Python would start in an environment as it did in ours, on a system that knows how to fork so."""
    return sys.platform.startswith("linux") and _of_start(env) == _of_start(os.environ)


def _of_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_AT_START)}


@functools.cache
def _prepared(entry: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process that runs of a program are forked from; it ends with us."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # -P: modules here have names of others, such as redis.
    command = [sys.executable, "-P", __file__, entry, str(its.fileno())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()])
    its.close()
    return ours, process


def _code(told: int, words: Sequence[str], timeout: float) -> int:
    """Return how a run ended, as ``subprocess`` says it; kill one that takes too long."""
    import select

    said, end = b"", time.monotonic() + timeout
    waiting = select.poll()
    waiting.register(told, select.POLLIN)
    while waiting.poll(max(0.0, end - time.monotonic()) * 1000):
        if not (part := os.read(told, 100)):
            break
        said += part
    lines = said.split()
    if len(lines) == 1:
        os.kill(int(lines[0]), signal.SIGKILL)
        raise subprocess.TimeoutExpired(list(words), timeout)
    assert len(lines) == 2, f"{words}: the process that has it prepared is gone"
    return int(lines[1])


def _serve(entry: str, orders: socket.socket) -> None:
    """Fork a run for each order; returns in a run, which is to end as a program does."""
    sys.path.append(str(Path(__file__).parent.parent))
    names, _, function = entry.partition(":")
    main = getattr([importlib.import_module(name) for name in names.split()][-1], function)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, _LARGEST, _FROM_OURS)
        if not order:
            return
        if os.fork() == 0:
            orders.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            child = os.fork()
            if child == 0:
                _become(descriptors, *pickle.loads(order))  # noqa: S301 -- from the tests that started us
                main()
                return
            os.write(descriptors[3], b"%d\n" % child)
            status = os.waitpid(child, 0)[1]
            os.write(descriptors[3], b"%d\n" % os.waitstatus_to_exitcode(status))
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(descriptors: Sequence[int], words: Sequence[str], env: Mapping[str, str], folder: str) -> None:
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    sys.argv = [*words]


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
