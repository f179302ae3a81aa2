"""uvicorn as this server runs it: no signals of its own, and an end that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn

from repo_server.web.connections import Connections

HANDSHAKE_SECONDS = 10.0
"""For the whole of TLS's handshake; before its end the connection does not count among the others."""


class HttpServer(uvicorn.Server):
    """uvicorn, with signals left to us: it would die of them after a clean shutdown instead of returning."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections
        self.listening = asyncio.Event()
        self.left = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so. Like uvicorn's, with less patience for handshakes that do not come."""
        config = self.config
        protocol: Callable[..., asyncio.Protocol] = config.http_protocol_class
        make = partial(protocol, config=config, server_state=self.server_state, app_state=self.lifespan.state)
        loop = asyncio.get_running_loop()
        patience = None if config.ssl is None else HANDSHAKE_SECONDS
        self.servers = [
            await loop.create_server(
                make, sock=one, ssl=config.ssl, ssl_handshake_timeout=patience, backlog=config.backlog
            )
            for one in sockets or []
        ]
        self.started = True
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end each one after its next answer, which says so."""
        self._connections.leaving = True
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
