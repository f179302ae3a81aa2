"""Errors before there is a request that a route could answer: what came is no HTTP, too long, too slow or too much."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from repo_server.core.wire import ErrorBody

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in the form of every other (EH-SRV-001), after which the connection ends."""

    status: int
    code: str
    message: str
    headers: bytes = b""
    """Each ended by CRLF."""

    def response(self) -> bytes:
        """Return the whole answer."""
        body = msgspec.json.encode(ErrorBody(self.code, self.message))
        return b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%b\r\n%b" % (
            STATUS_LINE[self.status],
            len(body),
            self.headers,
            body,
        )


class Refused(Exception):
    """Raised into the parser, which ends with it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


NO_HTTP = Refusal(400, "malformed_request", "this is not HTTP; expected a request such as GET /healthz HTTP/1.1")
HEAD_TOO_LARGE = Refusal(431, "head_too_large", f"request line and headers have more than {MAX_HEAD_BYTES} bytes")
UNKNOWN_CODING = Refusal(501, "unknown_coding", "the transfer coding is not chunked; send the body with its length")
TOO_MANY = Refusal(503, "overloaded", "too many connections", b"retry-after: 10\r\n")


def too_slow(seconds: float) -> Refusal:
    """Return what a client is told whose request has taken so long to arrive."""
    return Refusal(408, "request_timeout", f"the request did not arrive within {seconds:g} s")
