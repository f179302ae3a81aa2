"""Asks a resident agent for a check, as any program on the machine may that runs as root."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.trigger import REQUEST


@contextmanager
def calling(path: Path) -> Iterator[socket.socket]:
    """Give a connection to a Unix socket; its path may be of any length."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
            yield connection
    finally:
        os.close(folder)


def ask(path: Path, request: bytes = REQUEST) -> str:
    """Send a request and return the answer."""
    with calling(path) as connection:
        with suppress(BrokenPipeError):
            connection.sendall(request)
        return heard(connection)


def heard(connection: socket.socket) -> str:
    """Return what the other side says until it hangs up."""
    said = b""
    try:
        while piece := connection.recv(100):
            said += piece
    except ConnectionResetError:
        # It hung up without having read everything.
        pass
    return said.decode()
