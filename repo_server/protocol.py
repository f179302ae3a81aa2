"""Limits that uvicorn does not have: the size of a request's head, and the time that a request takes to arrive.

Without them a client can hold a connection, and memory, for ever by sending slowly or without end.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from repo_server.core.wire import ErrorBody

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers."""
REQUEST_SECONDS = 30.0
"""From the first byte of a request, or from connecting, to the last byte of its body."""
CLOSE_SECONDS = 0.5


class LimitedHttp(HttpToolsProtocol):
    """uvicorn's protocol, giving up on requests that are too long or too slow."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._arriving = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count while a head is arriving, and keep an eye on the time while there is more to come."""
        if self._in_head:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse()
                return
            # Counted after the check: a read may carry a whole body behind its head, so one read more is let through.
            self._head_bytes += len(data)
        super().data_received(data)
        # Nearly every request arrives in one read and needs no clock.
        if self._arriving and self._timer is None:
            self._start_timer()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._arriving = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop counting."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Be ready for the next head; while the connection idles, uvicorn's keep-alive limit counts."""
        self._in_head = True
        self._head_bytes = 0
        self._arriving = False
        self._stop_timer()
        super().on_message_complete()

    def shutdown(self) -> None:
        """Let a running answer finish; do not wait long for an idle client to agree to the end of its TLS."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP like every other error (EH-SRV-001)."""
        self._fail(b"400 Bad Request", "malformed_request", msg)

    def _refuse(self) -> None:
        message = f"request line and headers have more than {MAX_HEAD_BYTES} bytes"
        self._fail(b"431 Request Header Fields Too Large", "head_too_large", message)

    def _fail(self, status: bytes, code: str, message: str) -> None:
        body = msgspec.json.encode(ErrorBody(code, message))
        length = str(len(body)).encode()
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %b\r\nconnection: close\r\n\r\n%b"
            % (status, length, body)
        )
        self.transport.close()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.pipeline:
            # It is we who do not read on: the answer to an earlier request is still being sent.
            self._start_timer()
        elif not self.transport.is_closing():
            self.transport.close()
