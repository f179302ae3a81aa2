"""HTTP on the wire: uvicorn's protocol with the limits that it does not have, and ``shortway`` for checks.

Limits: the size of a request's head, the time that a request takes to arrive, the number of connections. Without them
a client can hold a connection, and memory, for ever by sending slowly or without end.

Another protocol is never begun: a request that wishes for one (``curl --http2`` does) is taken as one that does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from repo_server.web.connections import Connections
from repo_server.web.flow import Flow
from repo_server.web.heads import Head, without_upgrade
from repo_server.web.refusals import (
    HEAD_TOO_LARGE,
    MAX_HEAD_BYTES,
    NO_HTTP,
    TOO_MANY,
    UNKNOWN_CODING,
    Refusal,
    Refused,
    too_slow,
)
from repo_server.web.shortway import ShortWay, ShortWayHttp

MOST_WAITING = 128
"""Requests of a connection that wait for the answer to an earlier one: some KiB each, for 30 bytes that came."""
_AT_ONCE = 4096
"""Bytes given to the parser before it is looked how many wait."""
CLOSE_SECONDS = 0.5
IDLE_SECONDS = 1.0
"""How long an idle connection may stay when the server stops: its client may be sending a request right now, which
would be lost. A client in the middle of its work gets its answer, with ``Connection: close``."""


class LimitedHttp(ShortWayHttp):
    """uvicorn's protocol, giving up on requests that are too long or too slow."""

    flow: Flow

    def __init__(self, *args: Any, connections: Connections, short_way: ShortWay, **kwargs: Any) -> None:
        super().__init__(*args, connections=connections, short_way=short_way, **kwargs)
        self.arriving = True
        self._short_head: Head | None = None
        self._between = True
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
            self._fail(TOO_MANY)
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
                self._rest()
                return
            self._whole = data
        if self._failure is not None:
            return
        if self._unread:
            self._unread += data
            return
        self._parse(data)

    def _rest(self) -> None:
        """Take note of a request that was answered without the parser."""
        self.arriving = False
        # Of empty lines, which may come before a request.
        self._head_bytes = 0
        if self._timer is not None:
            self._stop_timer()
        self._unset_keepalive_if_required()
        self._known.rests(self)

    def _parse(self, data: bytes) -> None:
        if self._in_head:
            # Counted before it is known where the head ends: a read may carry a whole body behind it.
            self._head_bytes += len(data)
        self._feed(data)
        self._whole = b""
        if self._failure is not None:
            return
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._fail(HEAD_TOO_LARGE)
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
            raise Refused(UNKNOWN_CODING)
        self._short_head = self._take_short_way(self._short_way)
        # The count leaves out what came in one read with an earlier request.
        if (self._short_head is None or self._head_bytes > MAX_HEAD_BYTES) and self._head_size() > MAX_HEAD_BYTES:
            raise Refused(HEAD_TOO_LARGE)
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
            self._known.rests(self)
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
            # Not in the log, as uvicorn would: anybody could fill it, without credentials.
            why = error.__context__
            self._fail(why.refusal if isinstance(why, Refused) else NO_HTTP)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _begin_again(self) -> None:
        """Parse a head without its wish for another protocol (RFC 9110, 7.8), whose body the parser would skip."""
        before = self.parser
        head = without_upgrade(before.get_method(), self.url, before.get_http_version(), self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.parser.feed_data(head)

    def _fail(self, refusal: Refusal) -> None:
        """Answer what cannot be understood, after all that was asked before (RFC 9112, 9.3.2), and close."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says that there always is one
        say = partial(self._say_last, refusal)
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

    def _say_last(self, refusal: Refusal) -> None:
        self._write_now(refusal.response())
        self.transport.close()
        self._short_way.turned_away(self.client, refusal)

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
            self._fail(too_slow(self._known.request_seconds))
