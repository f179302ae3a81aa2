"""A real HTTP server on loopback that answers as a test says, byte by byte if need be."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class Reply:
    """Lets a test write any answer, also one that breaks HTTP."""

    def __init__(self, handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        self._handler = handler
        self.stopping = stopping
        """Set when the test is over: endless answers end then."""

    def raw(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def send(self, status: int, body: bytes = b"", *, claim: int | None = None, **headers: str) -> None:
        """Write a whole answer; ``claim`` is a Content-Length that differs from the body's."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("content-length", str(len(body) if claim is None else claim))
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in named.items() if value)]
        self.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def json(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Write a JSON answer."""
        self.send(status, body, content_type="application/json", **headers)

    def hang_up(self) -> None:
        """Close the connection now."""
        self._handler.close_connection = True
        with contextlib.suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)


Script = Callable[[Request, Reply], None]


@dataclass
class ScriptedServer:
    """A server, what it was asked, and how it answers (which a test may change at any time)."""

    url: str
    script: Script
    requests: list[Request] = field(default_factory=list)


@contextlib.contextmanager
def scripted_server(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """Run a server in threads until the block ends."""
    stopping = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            request = Request(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(length),
            )
            running.requests.append(request)
            # A client that has heard enough hangs up; that is its right.
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                running.script(request, Reply(self, stopping))

        do_GET = do_POST = do_HEAD = _serve  # noqa: N815 -- the names that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    running = ScriptedServer(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
