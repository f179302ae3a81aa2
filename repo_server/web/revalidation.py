"""Answers that a client may keep, and asks about again: an ETag of the body, and 304 for who has it (RFC 9110)."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from repo_server.web.http import Call
from repo_server.web.ranges import lists

_JSON = (b"content-type", b"application/json")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
# Kept by nobody but who asked: it is for operators, and asked about each time.
_ASK_AGAIN = (b"cache-control", b"private, no-cache")


async def answer_or_unchanged(call: Call, value: Any) -> None:
    """Send a value as JSON, or 304 to a client that has exactly this already."""
    body = msgspec.json.encode(value)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = [_ASK_AGAIN, (b"etag", etag.encode())]
    known = call.header(b"if-none-match")
    if known is not None and lists(known, etag, weak=True):
        await call.start(304, headers)
        await call.send({"type": "http.response.body", "body": b""})
        return
    await call.answer(200, body, (_JSON, _NOSNIFF, *headers))
