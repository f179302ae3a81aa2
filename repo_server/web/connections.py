"""What a process's connections share: how many there may be, and who goes first: those that have been silent longest.

A new client is never refused because of idle ones: at the limit the connection that rests longest makes room. That is
how ten thousand idle connections, or as many that send a byte now and then, do not hold the server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from repo_server.web.heads import Heads
from repo_server.web.turn import Turn

IDLE_SECONDS = 75.0
RESERVED_DESCRIPTORS = 256
"""Files, database and so on; the rest of the process's limit is for connections."""


class Connection(Protocol):
    """What is needed of a connection."""

    arriving: bool
    """A request has begun to arrive; its own time limit counts."""

    def let_go(self) -> None:
        """Close it, for it rests."""


@dataclass(slots=True)
class Connections:
    """The connections that rest: between two requests, before the first, or while a request is still arriving."""

    most: int
    clock: Callable[[], float]
    request_seconds: float = 30.0
    """How long a request may take from its first byte, or from connecting, to the last byte of its body."""
    leaving: bool = False
    """The server stops: each connection ends after its next answer."""
    count: int = 0
    evicted: int = 0
    refused: int = 0
    heads: Heads = field(default_factory=Heads)
    turn: Turn = field(default_factory=Turn)
    _resting: dict[Connection, float] = field(default_factory=dict)
    """Since when; the longest first."""
    _headers: Sequence[tuple[bytes, bytes]] = ()
    _header_lines: bytes = b""

    def made(self, connection: Connection) -> bool:
        """Take in a new connection; return whether there is room for it."""
        if self.count >= self.most and not self._evict():
            self.refused += 1
            return False
        self.count += 1
        self._resting[connection] = self.clock()
        return True

    def busy(self, connection: Connection) -> None:
        """Note that a request has arrived and is being answered."""
        self._resting.pop(connection, None)

    def rests(self, connection: Connection) -> None:
        """Note that a request has been answered."""
        self._resting.pop(connection, None)
        self._resting[connection] = self.clock()

    def gone(self, connection: Connection) -> None:
        """Note that the connection has ended."""
        self.count -= 1
        self._resting.pop(connection, None)

    def header_lines(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Return the headers that every answer has, each ended by CRLF; they change once a second."""
        if headers is not self._headers:
            self._headers = headers
            self._header_lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._header_lines

    def sweep(self) -> None:
        """Close what has been idle too long."""
        oldest = self.clock() - IDLE_SECONDS
        idle = []
        for connection, since in self._resting.items():
            if since > oldest:
                break
            if not connection.arriving:
                idle.append(connection)
        for connection in idle:
            self._resting.pop(connection, None)
            connection.let_go()

    def _evict(self) -> bool:
        if not self._resting:
            return False
        connection = next(iter(self._resting))
        del self._resting[connection]
        self.evicted += 1
        connection.let_go()
        return True
