"""Accepts TLS connections. A handshake under way has a place too, and the longest one makes room (NFR-SRV-009).

The event loop's own server knows a connection once its handshake is done. Before that, clients that say nothing would
hold as many descriptors as the system gives, and the tree's files could not be opened any more.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from repo_server.web.connections import Connections

HANDSHAKE_SECONDS = 10.0
"""For the whole of a handshake."""
_PAUSE_SECONDS = 0.1
_AT_ONCE = 16
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class TlsListener:
    """What ``loop.create_server`` returns, as far as uvicorn needs it."""

    listener: socket.socket
    make: Callable[[], asyncio.Protocol]
    context: ssl.SSLContext
    connections: Connections
    _under_way: dict[asyncio.Task[None], None] = field(default_factory=dict)
    """Handshakes; the longest first."""
    _open: bool = True

    def start(self) -> None:
        """Begin to accept."""
        self.listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept no more; handshakes under way go on."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self.listener)

    async def settle(self, seconds: float) -> None:
        """Wait for the handshakes under way, so long at most: whoever has begun one is about to ask."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)

    async def wait_closed(self) -> None:
        """Give up the handshakes that are still under way."""
        left = list(self._under_way)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _listen(self) -> None:
        if self._open:
            asyncio.get_running_loop().add_reader(self.listener, self._accept)

    def _accept(self) -> None:
        """Accept who waits, a few at a time: others want to be answered as well."""
        for _ in range(_AT_ONCE):
            try:
                client, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SCARCE:
                    _log.warning("no connection can be accepted now: %s", error)
                    loop = asyncio.get_running_loop()
                    loop.remove_reader(self.listener)
                    loop.call_later(_PAUSE_SECONDS, self._listen)
                    return
                # It was that one client, which went away again.
                continue
            client.setblocking(False)
            self._begin(client)

    def _begin(self, client: socket.socket) -> None:
        if self._under_way and self.connections.count + len(self._under_way) >= self.connections.most:
            longest = next(iter(self._under_way))
            del self._under_way[longest]
            longest.cancel()
            self.connections.evicted += 1
        task = asyncio.get_running_loop().create_task(self._shake_hands(client))
        self._under_way[task] = None
        task.add_done_callback(lambda ended: self._under_way.pop(ended, None))

    async def _shake_hands(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self.make, client, ssl=self.context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, ssl.SSLError, asyncio.CancelledError):
            # Whoever does not finish a handshake is told by its end; a failed one is nothing to say.
            client.close()
