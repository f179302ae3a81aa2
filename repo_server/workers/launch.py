"""Starts a worker: this program again, with the listening socket and its end of a channel."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.subprocess import Process

from repo_server.workers.crew import Launch


def launcher(listener: socket.socket, kept: int, log_level: str) -> Launch:
    """Return what starts workers on a listening socket; they keep a lock (``outliving``) as long as they live."""

    async def launch(number: int, end: socket.socket) -> Process:
        command = [sys.executable, "-m", "repo_server", "worker"]
        options = {"channel": end.fileno(), "number": number, "log-level": log_level}
        return await asyncio.create_subprocess_exec(
            *command,
            *(f"--{name}={value}" for name, value in options.items()),
            pass_fds=(end.fileno(), listener.fileno(), kept),
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C in a terminal goes to the whole group; workers are told by the main process, once.
            start_new_session=True,
        )

    return launch
