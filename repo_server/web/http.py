"""HTTP as the server speaks it: errors as JSON, bodies with a limit, the Host header (EH-SRV-001).

::

    HttpError             status, code, message, headers: becomes the answer
    └── ClientGone        the client hung up before its request was complete; nobody to answer
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from repo_server.core.expected import in_words
from repo_server.core.wire import ErrorBody
from repo_server.web.heads import Head

CHECK_BODY_BYTES = 64 * 1024
STATUS_BODY_BYTES = 1024 * 1024
_LINGER_BYTES = 8 * 1024 * 1024
_LINGER_SECONDS = 2.0

Headers = Sequence[tuple[bytes, bytes]]
_Value = TypeVar("_Value")
_JSON = (b"content-type", b"application/json")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class HttpError(Exception):
    """A request that is answered with an error; ``code`` is stable and machine-readable."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


class ClientGone(HttpError):
    """The client hung up before its request was complete."""

    def __init__(self) -> None:
        super().__init__(400, "incomplete_request", "the connection ended before the request was complete")


@dataclass(slots=True)
class Call:
    """One request: ASGI's three parts, with what the routes need of them."""

    scope: Scope
    receive: Receive
    send: Send
    address: str = ""
    """The client's; "" behind a Unix socket."""
    began: float = 0.0
    """When, by a clock that only goes forward, in seconds."""
    now: datetime | None = None
    """The time of day at which it was answered, if somebody has looked already."""
    scheme: str = "http"
    """How the client asked: ``http`` or ``https``."""
    status: int = 0
    """Of the response, once it has begun; 0 before, so that no other can be sent after."""
    who: str | None = None
    """Whose credentials it came with: ``secret:`` and an id, or ``token:`` and a name."""
    auth: str = "none"
    asked: Any = None
    """What was asked and what was answered, for the audit (NFR-AUD-001)."""
    told: Any = None
    error: HttpError | None = None
    body_done: bool = False
    headers: dict[bytes, bytes | None] | None = None
    """Each header's value, ``None`` for one that stands there twice; made when it is first needed."""
    head: Head | None = None
    """On the short way, what other requests may share with this one."""

    @property
    def method(self) -> str:
        """``GET``, ``POST`` and so on."""
        return str(self.scope["method"])

    def header(self, name: bytes) -> str | None:
        """Return a header that may stand once, or ``None``; raise ``HttpError`` if it stands twice."""
        headers = self.headers
        if headers is None:
            headers = self.headers = single_headers(self.scope["headers"])
        if name not in headers:
            return None
        found = headers[name]
        if found is None:
            raise HttpError(400, "duplicate_header", f"the header {name.decode()} stands there twice")
        return found.decode("latin-1")

    def require_host(self) -> None:
        """Raise ``HttpError`` 400 unless there is one Host (RFC 9112, 3.2); before HTTP/1.1 there need be none."""
        hosts = sum(name == b"host" for name, _ in self.scope["headers"])
        if hosts > 1:
            raise HttpError(400, "duplicate_header", "the header host stands there twice")
        if not hosts and self.scope["http_version"] == "1.1":
            raise HttpError(400, "invalid_host", "the Host header is missing; expected the server's name")

    async def body(self, limit: int) -> bytes:
        """Read the whole body; raise ``HttpError`` 413 as soon as it is known to be over the limit.

        A body that arrives too slowly is ``protocol``'s business.
        """
        declared = self.header(b"content-length")
        if declared is not None and int(declared) > limit:
            raise _too_large(limit)
        return await self._read(limit)

    async def _read(self, limit: int) -> bytes:
        message = await self.receive()
        parts = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
            if not message.get("more_body", False):
                self.body_done = True
                return b"".join(parts)
            message = await self.receive()

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the response."""
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def answer(self, status: int, body: bytes, headers: Headers = (_JSON,)) -> None:
        """Send a whole response."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, [*headers, length])
        await self.send({"type": "http.response.body", "body": body})

    async def json(self, value: Any, status: int = 200) -> None:
        """Send a value as JSON that nobody may keep."""
        await self.answer(status, msgspec.json.encode(value), (_JSON, _NO_STORE, _NOSNIFF))

    async def fail(self, error: HttpError) -> None:
        """Send an error.

        A body that has not been read is read and thrown away for a moment: a connection that is closed with
        unread bytes is reset, and the client would see that instead of the answer.
        """
        self.error = error
        headers, body = error_response(error)
        unread = not self.body_done and self._has_body()
        if unread and "connection" not in error.headers:
            headers.append((b"connection", b"close"))
        await self.start(error.status, headers)
        await self.send({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await self._linger()
            await self.send({"type": "http.response.body", "body": b""})

    def _has_body(self) -> bool:
        return any(
            (name == b"content-length" and value != b"0") or name == b"transfer-encoding"
            for name, value in self.scope["headers"]
        )

    async def _linger(self) -> None:
        left = _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while left > 0:
                    message = await self.receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return

    def base(self, configured: str | None) -> str:
        """Return what absolute URLs start with: the setting, else the request's Host if that is a host's name.

        Raise ``HttpError``: a Host that is something else would be an injection into the answer.
        """
        if configured is not None:
            return configured.rstrip("/")
        host = self.header(b"host")
        if not host:
            server = self.scope.get("server") or ("localhost", None)
            name = f"[{server[0]}]" if ":" in server[0] else server[0]
            host = name if server[1] is None else f"{name}:{server[1]}"
        elif not _is_host(host):
            raise HttpError(400, "invalid_host", "the Host header is not a host's name or address with a port")
        return f"{self.scheme}://{host}"


@lru_cache(maxsize=256)
def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def single_headers(headers: Headers) -> dict[bytes, bytes | None]:
    """Return each header's value, ``None`` for one that stands there twice."""
    found: dict[bytes, bytes | None] = {}
    for name, value in headers:
        found[name] = None if name in found else value
    return found


def error_response(error: HttpError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body that tell of an error (EH-SRV-001)."""
    body = msgspec.json.encode(ErrorBody(error.code, error.message))
    headers = [_JSON, _NO_STORE, _NOSNIFF, (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
    return headers, body


def decode(body: bytes, decoder: msgspec.json.Decoder[_Value]) -> _Value:
    """Decode a JSON body; raise ``HttpError`` 400 if it is not JSON and 422 if it is of another shape."""
    if not body.strip():
        raise HttpError(400, "empty_body", "the body is empty; expected a JSON object")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise HttpError(422, "invalid_request", in_words(error, decoder.type)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise HttpError(400, "malformed_json", f"the body is not JSON: {in_words(error)}") from None


def require_json(call: Call) -> None:
    """Raise ``HttpError`` 415 if the client says that its body is something else than JSON."""
    coding = call.header(b"content-encoding")
    if coding is not None and coding.strip().lower() != "identity":
        raise HttpError(415, "unsupported_media_type", f"content-encoding is {coding!r:.80}; send the body plain")
    stated = call.header(b"content-type")
    if stated is None or stated == "application/json":
        return
    kind = stated.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise HttpError(415, "unsupported_media_type", f"content-type is {kind!r:.80}; expected application/json")


def require_reading(call: Call) -> None:
    """Raise ``HttpError`` 405 unless the request only reads: GET or HEAD."""
    if call.method not in {"GET", "HEAD"}:
        raise method_not_allowed("GET, HEAD")


def method_not_allowed(allowed: str) -> HttpError:
    """Return the 405 for an endpoint."""
    return HttpError(405, "method_not_allowed", f"expected {allowed}", {"allow": allowed})


def not_ready() -> HttpError:
    """Return the 503 of a server that has not looked at its tree yet."""
    return HttpError(
        503, "not_ready", "the first look at the tree is not finished; try again soon", {"retry-after": "2"}
    )


def _too_large(limit: int) -> HttpError:
    return HttpError(413, "body_too_large", f"the body has more than {limit} bytes")
