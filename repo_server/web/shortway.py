"""The short way of checks: a request that is answered without waiting for anything (design §9).

Nearly all of the traffic is such. It needs no task, no ASGI messages and no timers, and without these costs half as
much. A request that comes whole in one read, with a head that came before, needs no parser either. Whatever is unusual
(another method, ``Expect``, chunks, a full write buffer, an earlier answer under way) takes the long way.
"""

from __future__ import annotations

from typing import Any, Protocol

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from repo_server.web.connections import Connections
from repo_server.web.heads import Head
from repo_server.web.http import single_headers
from repo_server.web.refusals import Refusal

OK = 200


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

    def turned_away(self, client: tuple[str, int] | None, refusal: Refusal) -> None:
        """Take note of a connection that was given an error before there was a request."""


class ShortWayHttp(HttpToolsProtocol):
    """uvicorn's protocol with a short way; who reads and parses decides which way a request takes."""

    def __init__(self, *args: Any, connections: Connections, short_way: ShortWay, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known = connections
        self._short_way = short_way
        self._parts: list[bytes] = []
        self._whole = b""

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
        return status, b"".join((STATUS_LINE[status], date, lines, end, answer))

    def _write_now(self, answer: bytes) -> None:
        """Write after what was answered before."""
        self._known.turn.end()
        self.transport.write(answer)
