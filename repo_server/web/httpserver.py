"""uvicorn as this server runs it: no signals of its own, and an end that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn

from repo_server.web.connections import Connections
from repo_server.web.handshakes import TlsListener

SETTLE_SECONDS = 1.0
"""What a handshake under way gets when the server stops; more than a round trip to the other side of the world."""


class HttpServer(uvicorn.Server):
    """uvicorn, with signals left to us: it would die of them after a clean shutdown instead of returning."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections
        self.listening = asyncio.Event()
        self.left = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so. Like uvicorn's, with an end to handshakes that do not come."""
        config = self.config
        protocol: Callable[..., asyncio.Protocol] = config.http_protocol_class
        make = partial(protocol, config=config, server_state=self.server_state, app_state=self.lifespan.state)
        self.servers = [await self._listen(one, make) for one in sockets or []]
        self.started = True
        self.listening.set()

    async def _listen(self, listener: socket.socket, make: Callable[[], asyncio.Protocol]) -> Any:
        config = self.config
        if config.ssl is None:
            return await asyncio.get_running_loop().create_server(make, sock=listener, backlog=config.backlog)
        tls = TlsListener(listener, make, config.ssl, self._connections)
        tls.start()
        return tls

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end each one after its next answer, which says so."""
        self._connections.leaving = True
        shaking = [server for server in self.servers if isinstance(server, TlsListener)]
        for server in shaking:
            server.close()
            server.listener.close()
        for server in shaking:
            await server.settle(SETTLE_SECONDS)
        await super().shutdown(sockets)

    def leave(self) -> None:
        """Finish what runs, then stop; said again, do not wait for downloads any more."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self.left.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
