"""Lets nginx send a release file (``X-Accel-Redirect``), once it is known that the client may have it."""

from __future__ import annotations

from urllib.parse import quote

from repo_server.web.files import OpenFile
from repo_server.web.http import Call, Headers, HttpError
from repo_server.web.ranges import Conditions, NotModified, PreconditionFailed, select


async def hand_over(call: Call, location: str, path: str, file: OpenFile, etag: str, headers: Headers) -> None:
    """Name the file below nginx's internal ``location``, and close it; ranges are nginx's business.

    Preconditions are decided here: nginx would compare an ETag of its own.
    """
    file.close()
    preconditions = Conditions(if_match=call.header(b"if-match"), if_none_match=call.header(b"if-none-match"))
    tagged = [*headers, (b"etag", etag.encode())]
    match select(preconditions, etag, file.identity.size):
        case PreconditionFailed():
            raise HttpError(412, "precondition_failed", "the file has another ETag than If-Match names")
        case NotModified():
            await call.start(304, tagged)
            await call.send({"type": "http.response.body", "body": b""})
        case _:
            redirect = (b"x-accel-redirect", f"{location}{quote(path)}".encode())
            await call.answer(200, b"", [*tagged, redirect])
