"""HTTP on the wire: uvicorn's protocol with the limits that it does not have, and a short way for checks.

Limits: the size of a request's head, the time that a request takes to arrive, the number of connections. Without them
a client can hold a connection, and memory, for ever by sending slowly or without end.

The short way: nearly all of the traffic is small requests that are answered without waiting for anything. They need no
task, no ASGI messages and no timers, and without these they cost half as much (design §9). One that comes whole in one
read, with a head that came before, needs no parser either. Whatever is unusual about a request (another method,
``Expect``, chunks, a full write buffer, an earlier answer under way) takes the long way.

Another protocol is never begun: a request that wishes for one (``curl --http2`` does) is taken as one that does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import httptools
import msgspec
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from repo_server.core.wire import ErrorBody
from repo_server.web.connections import Connections
from repo_server.web.flow import Flow
from repo_server.web.heads import Head
from repo_server.web.http import single_headers

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers."""
MOST_WAITING = 128
"""Requests of a connection that wait for the answer to an earlier one: some KiB each, for 30 bytes that came."""
_AT_ONCE = 4096
"""Bytes given to the parser before it is looked how many wait."""
OK = 200
CLOSE_SECONDS = 0.5
IDLE_SECONDS = 1.0
"""How long an idle connection may stay when the server stops: its client may be sending a request right now, which
would be lost. A client in the middle of its work gets its answer, with ``Connection: close``."""


class HeadTooLarge(Exception):
    """Raised into the parser, which ends with it."""


class CodingUnknown(Exception):
    """Raised into the parser, which ends with it."""


class ShortWay(Protocol):
    """An ASGI application that answers some requests at once."""

    short_path: bytes
    """The one path of such requests, as in the request line; the method is POST."""
    path: str
    """The same as text."""
    short_bytes: int
    """The largest body of such a request."""

    def answer_at_once(self, scope: Scope, head: Head, body: bytes) -> tuple[int, bytes, bytes]:
        """Return status, headers each ended by CRLF, and body. Never raises, never waits.

        ``head`` has the headers of the scope.
        """

    def turned_away(self, client: tuple[str, int] | None, status: int, code: str, message: str) -> None:
        """Take note of a connection that was given an error before there was a request."""


class LimitedHttp(HttpToolsProtocol):
    """uvicorn's protocol, giving up on requests that are too long or too slow."""

    flow: Flow

    def __init__(self, *args: Any, connections: Connections, short_way: ShortWay, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.arriving = True
        self._known = connections
        self._short_way = short_way
        self._short_head: Head | None = None
        self._parts: list[bytes] = []
        self._between = True
        self._whole = b""
        self._unread = b""
        self._counted = False
        self._upgrade = False
        self._head_bytes = 0
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._failure: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """Start the clock for the first request, if there is room for the connection."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._counted = self._known.made(self)
        if not self._counted:
            self._fail(b"503 Service Unavailable", "overloaded", "too many connections", b"retry-after: 10\r\n")
            return
        self._start_timer()
        if self._known.leaving:
            # Accepted a moment before the server took no more.
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, and tell the answer that is under way."""
        self._stop_timer()
        if self._counted:
            self._known.gone(self)
        if (running := self._running) is not None and not running.response_complete:
            # uvicorn tells only the latest of several requests.
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio wants to know, uvicorn never says
        """Keep the connection for the answers to what has been asked; after the end of TLS there is none."""
        self._known.turn.end()
        if self._failure is not None:
            return self.scheme != "https"
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says that there always is one
        if cycle is None or cycle.response_complete or not self._in_head or self.scheme == "https":
            return False
        cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Count while a head is arriving, and keep an eye on the time while there is more to come."""
        if self._between:
            if self._answer_known(data):
                return
            self._whole = data
        if self._failure is not None:
            return
        if self._unread:
            self._unread += data
            return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._in_head:
            # Counted before it is known where the head ends: a read may carry a whole body behind it.
            self._head_bytes += len(data)
        self._feed(data)
        self._whole = b""
        if self._failure is not None:
            return
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()
            return
        # Nearly every request arrives in one read and needs no clock.
        if self.arriving and self._timer is None:
            self._start_timer()

    def on_message_begin(self) -> None:
        """Begin a request. What the long way needs is made once it is chosen."""
        self.arriving = True
        self._between = False
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Stop counting, and choose the way."""
        self._upgrade = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._upgrade:
            return
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            raise CodingUnknown
        self._short_head = self._take_short_way(self._short_way)
        # The count leaves out what came in one read with an earlier request.
        if (self._short_head is None or self._head_bytes > MAX_HEAD_BYTES) and self._head_size() > MAX_HEAD_BYTES:
            raise HeadTooLarge
        self._in_head = False
        if self._short_head is None:
            url, headers, expected = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expected
            self.headers.extend(headers)
            self._known.busy(self)
            super().on_headers_complete()
            if self._known.leaving:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        if self._short_head is not None:
            self._parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Be ready for the next head; while the connection idles, the keep-alive limit counts."""
        if self._upgrade:
            return
        self._in_head = True
        self._between = True
        self._head_bytes = 0
        self.arriving = False
        if self._timer is not None:
            self._stop_timer()
        if (head := self._short_head) is not None:
            self._short_head = None
            self._answer_parsed(head)
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Count the connection among those that rest."""
        if self._counted:
            self._known.rests(self)
        was_last = not self.pipeline
        super().on_response_complete()
        if not was_last or self.transport.is_closing():
            return
        if self._failure is not None:
            self._failure()
        elif self._unread:
            unread, self._unread = self._unread, b""
            self._parse(unread)
            if not self._unread:
                self.flow.held = False
                if not self.pipeline:
                    self.flow.resume_reading()

    def shutdown(self) -> None:
        """Let a running answer finish, and a client that is just asking get one."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says that there always is one
        if cycle is None or cycle.response_complete:
            self.loop.call_later(IDLE_SECONDS, self._leave)
        else:
            cycle.keep_alive = False

    def _leave(self) -> None:
        """Close unless a request is arriving or answered; do not wait long for a client to agree to the end of TLS."""
        if self._head_bytes or not self._in_head:
            return
        self._known.turn.end()
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def let_go(self) -> None:
        """Close the connection: it rests, or its request takes too long to arrive."""
        if not self.transport.is_closing():
            self._known.turn.end()
            self.transport.close()
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP like every other error (EH-SRV-001)."""
        self._fail(b"400 Bad Request", "malformed_request", msg)

    def _feed(self, data: bytes) -> None:
        """Parse what came, as uvicorn does it, but for upgrades."""
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        try:
            while True:
                part = rest[:_AT_ONCE]
                try:
                    self.parser.feed_data(part)
                except httptools.HttpParserUpgrade as end:
                    rest = rest[end.args[0] :]
                    if self._upgrade:
                        self._begin_again()
                    continue
                rest = rest[len(part) :]
                if not rest:
                    return
                if self._in_head and len(self.pipeline) >= MOST_WAITING:
                    self._unread = bytes(rest)
                    self.flow.held = True
                    self.flow.pause_reading()
                    return
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, HeadTooLarge):
                self._refuse()
                return
            if isinstance(error.__context__, CodingUnknown):
                message = "the transfer coding is not chunked; send the body with its length"
                self._fail(b"501 Not Implemented", "unknown_coding", message)
                return
            # Not in the log, as uvicorn would: anybody could fill it, without credentials.
            self.send_400_response("this is not HTTP; expected a request such as GET /healthz HTTP/1.1")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _begin_again(self) -> None:
        """Parse a head without its wish for another protocol (RFC 9110, 7.8), whose body the parser would skip."""
        before = self.parser
        head = [b"%b %b HTTP/%b\r\n" % (before.get_method(), self.url, before.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                options = (option.strip().lower() for option in value.split(b","))
                head.append(b"connection: %b\r\n" % b", ".join(option for option in options if option != b"upgrade"))
            elif name != b"upgrade":
                head.append(b"%b: %b\r\n" % (name, value))
        head.append(b"\r\n")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.parser.feed_data(b"".join(head))

    def _is_free(self) -> bool:
        """Whether nothing is under way that an answer would have to wait for."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says that there always is one
        return (cycle is None or cycle.response_complete) and not (
            self.flow.write_paused or self.transport.is_closing()
        )

    def _take_short_way(self, way: ShortWay) -> Head | None:
        """Return the head, if the request that it begins is one for the short way."""
        if (
            self.url != way.short_path
            or self.expect_100_continue
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
            or self.parser.should_upgrade()
            or not self._is_free()
        ):
            return None
        single = single_headers(self.headers)
        length = single.get(b"content-length")
        if length is None or b"transfer-encoding" in single or int(length) > way.short_bytes:
            return None
        if not single.get(b"host"):
            # Twice is an error; none in it, and the answer depends on the connection, not on the head alone.
            return None
        return Head(self.headers, single, int(length))

    def _answer_known(self, read: bytes) -> bool:
        """Answer a request that came whole and whose head came before; return whether it was one."""
        found = self._known.heads.of(read)
        if found is None or self._known.leaving or not self._is_free():
            return False
        head, body_at = found
        self.arriving = False
        # Of empty lines, which may come before a request.
        self._head_bytes = 0
        if self._timer is not None:
            self._stop_timer()
        self._unset_keepalive_if_required()
        _, answer = self._answer_at_once(head, read[body_at:], keep=True)
        self._known.turn.write(self.loop, self.transport, answer)
        return True

    def _answer_parsed(self, head: Head) -> None:
        """Answer a request that the parser has taken apart; others may follow it in the same read."""
        body = b"".join(self._parts)
        self._parts.clear()
        keep = self.parser.should_keep_alive() and not self._known.leaving
        status, answer = self._answer_at_once(head, body, keep=keep)
        self._write_now(answer)
        if not keep:
            self.transport.close()
        elif status == OK and self._whole:
            self._known.heads.remember(self._whole, head)

    def _answer_at_once(self, head: Head, body: bytes, *, keep: bool) -> tuple[int, bytes]:
        """Return status and answer."""
        known, way = self._known, self._short_way
        scope = {
            "type": "http", "method": "POST", "path": way.path, "scheme": self.scheme,
            "client": self.client, "server": self.server, "headers": head.headers,
        }  # fmt: skip
        status, lines, answer = way.answer_at_once(scope, head, body)
        end = b"\r\n" if keep else b"connection: close\r\n\r\n"
        date = known.header_lines(self.server_state.default_headers)
        self.server_state.total_requests += 1
        known.rests(self)
        return status, b"".join((STATUS_LINE[status], date, lines, end, answer))

    def _write_now(self, answer: bytes) -> None:
        """Write after what was answered before."""
        self._known.turn.end()
        self.transport.write(answer)

    def _refuse(self) -> None:
        message = f"request line and headers have more than {MAX_HEAD_BYTES} bytes"
        self._fail(b"431 Request Header Fields Too Large", "head_too_large", message)

    def _fail(self, status: bytes, code: str, message: str, headers: bytes = b"") -> None:
        """Answer what cannot be understood, after all that was asked before (RFC 9112, 9.3.2), and close."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says that there always is one
        say = partial(self._say_last, status, code, message, headers)
        if cycle is None or cycle.response_complete:
            say()
        elif self._in_head or self.pipeline:
            if not self._in_head:
                # Its own body is what cannot be understood.
                self.pipeline.popleft()
            self._stop_timer()
            self._failure = say
        elif cycle.response_started:
            self.transport.close()
        else:
            say()

    def _say_last(self, status: bytes, code: str, message: str, headers: bytes) -> None:
        body = msgspec.json.encode(ErrorBody(code, message))
        length = str(len(body)).encode()
        self._write_now(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %b\r\nconnection: close\r\n%b\r\n%b"
            % (status, length, headers, body)
        )
        self.transport.close()
        self._short_way.turned_away(self.client, int(status[:3]), code, message)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self._known.request_seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says that there always is one
        answering = cycle is not None and not cycle.response_complete
        if self.transport.is_closing():
            return
        if self.pipeline or (answering and self._in_head):
            # It is we who do not read on: the answer to an earlier request is still being sent.
            self._start_timer()
        elif answering or self._between:
            # Who waits for the body finds it ended, and tells the audit; or it has not even begun to ask.
            self.transport.close()
        else:
            message = f"the request did not arrive within {self._known.request_seconds:g} s"
            self._fail(b"408 Request Timeout", "request_timeout", message)
