"""The Unix socket for "update now": owner only, never waited for (FR-UPD-001B). Standard library only.

Its folder and itself are private, and the kernel says who calls. A caller that is slow, sends too much or nothing
costs a descriptor for ``PEER_SECONDS``, and never holds anybody up who waits for something else.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("this is the socket of POSIX; expected a named pipe on Windows")

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from agent.trigger import MAX_REQUEST, MOST_PEERS, PEER_SECONDS

_LONGEST_PATH = 100
"""Bytes that an address can hold on every system, and some."""
_DESCRIPTORS = Path("/proc/self/fd")
_GONE = frozenset({errno.ENOENT, errno.ECONNREFUSED})
_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES = 0, 1, 76


class _Peer:
    """Somebody who called, and what was said so far."""

    __slots__ = ("connection", "said", "until")

    def __init__(self, connection: socket.socket, until: float) -> None:
        self.connection = connection
        self.until = until
        self.said = b""


class TriggerSocket:
    """Listens once ``open`` has returned. ``answer`` gets a request and returns the line to send back."""

    def __init__(self, path: Path, allowed: Collection[int], answer: Callable[[bytes], bytes]) -> None:
        self._path = path
        self._allowed = allowed
        """User ids."""
        self._answer = answer
        self._listener: socket.socket | None = None
        self._bound: tuple[int, int] | None = None
        self._peers: list[_Peer] = []

    @property
    def is_open(self) -> bool:
        """Whether it listens where it can be found: somebody may have removed its file, or the folder."""
        return self._listener is not None and _file_at(self._path) == self._bound

    def open(self) -> None:
        """Listen; what a killed agent left is replaced. Raises ``OSError``: EADDRINUSE if somebody listens there.

        One that cannot be found any more is replaced; who called it before is still answered.
        """
        self._unlisten()
        listener = socket.socket(socket.AF_UNIX)
        try:
            with _address(self._path) as address:
                _make_free(self._path, address)
                before = os.umask(0o177)
                try:
                    listener.bind(address)
                finally:
                    os.umask(before)
            listener.setblocking(False)
            listener.listen(MOST_PEERS)
        except OSError:
            listener.close()
            raise
        self._listener, self._bound = listener, _file_at(self._path)

    def close(self) -> None:
        """Stop listening; idempotent."""
        while self._peers:
            self._leave(self._peers[0])
        self._unlisten()

    def _unlisten(self) -> None:
        if self._listener is None:
            return
        with contextlib.suppress(OSError):
            # In its place may be another's by now.
            if self.is_open:
                self._path.unlink()
        self._listener.close()
        self._listener = None

    def descriptors(self) -> list[int]:
        """Return what to wait for until ``serve`` has something to do."""
        found = [peer.connection.fileno() for peer in self._peers]
        if self._listener is not None and len(found) < MOST_PEERS:
            found.append(self._listener.fileno())
        return found

    def serve(self, now: float) -> float | None:
        """Do what can be done without waiting; return when a caller's time is over (as ``now``, monotonic seconds)."""
        self._accept(now)
        for peer in list(self._peers):
            if self._has_all(peer):
                self._reply(peer)
            elif now >= peer.until:
                self._leave(peer)
        return min((peer.until for peer in self._peers), default=None)

    def _accept(self, now: float) -> None:
        while self._listener is not None and len(self._peers) < MOST_PEERS:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Nobody is there any more, or there is no descriptor left; who still waits is served later.
                return
            connection.setblocking(False)
            peer = _Peer(connection, now + PEER_SECONDS)
            self._peers.append(peer)
            if caller(connection) not in self._allowed:
                self._leave(peer)

    def _has_all(self, peer: _Peer) -> bool:
        """Whether the request is complete, or will not become better: a line, too much, or the end."""
        try:
            piece = peer.connection.recv(MAX_REQUEST)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        peer.said += piece
        return not piece or b"\n" in peer.said or len(peer.said) >= MAX_REQUEST

    def _reply(self, peer: _Peer) -> None:
        if peer.said:
            # A short line always fits into an empty buffer; who hung up does not want it.
            with contextlib.suppress(OSError):
                peer.connection.send(self._answer(peer.said))
        self._leave(peer)

    def _leave(self, peer: _Peer) -> None:
        peer.connection.close()
        self._peers.remove(peer)


def owners() -> frozenset[int]:
    """Return the ids of the users who may ask: root, and whoever runs this agent."""
    return frozenset({0, os.geteuid()})


def caller(connection: socket.socket) -> int | None:
    """Return the user id of who is at the other end of a Unix socket, as the kernel knows it; ``None``: unknown."""
    try:
        if sys.platform == "darwin":
            _, user = struct.unpack_from("II", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES))
        else:
            size = struct.calcsize("3i")
            _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    except (OSError, struct.error):
        return None
    return int(user)


def _file_at(path: Path) -> tuple[int, int] | None:
    """Return which file a name stands for, ``None`` if it cannot be seen."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _make_free(path: Path, address: str) -> None:
    """Remove a socket that nobody listens at; raise ``OSError``."""
    with socket.socket(socket.AF_UNIX) as probe:
        # One whose callers are too many does not answer at once.
        probe.settimeout(1.0)
        number = probe.connect_ex(address)
    if number == errno.ENOENT:
        return
    if number not in _GONE:
        raise OSError(errno.EADDRINUSE, "another resident agent listens there", str(path))
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """Yield an address for a path of any length: the kernel's own name of its folder is short."""
    if len(os.fsencode(path)) <= _LONGEST_PATH or not _DESCRIPTORS.is_dir():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"{_DESCRIPTORS}/{folder}/{path.name}"
    finally:
        os.close(folder)
