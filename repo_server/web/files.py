"""Sending files: opened safely, in chunks from worker threads, with flat memory (NFR-PER-002, L25, L29).

::

    FileGone         it is not there any more, or cannot be read
    └── FileChanged  it is not the file whose digest was verified (L25)
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from repo_server.tree.treeio import FileIdentity, TreeError, open_beneath
from repo_server.web.http import Call, Headers, HttpError
from repo_server.web.ranges import (
    Conditions,
    NotModified,
    NotSatisfiable,
    Part,
    Parts,
    PreconditionFailed,
    Selection,
    Whole,
    select,
)

FIRST_BYTES = 64 * 1024
CHUNK_BYTES = 512 * 1024
"""What is read at once: little at first, for a client that takes nothing has that much of the server's memory."""
EAGER_BYTES = 8 * 1024 * 1024
"""Whoever took so much takes more; before that, it may all be in the kernel."""
EAGER_SECONDS = 1.0
"""A client that takes longer for a chunk gets small ones again."""
STALL_SECONDS = 120.0
"""A client that takes nothing for so long is dropped."""

_log = logging.getLogger(__name__)


class FileGone(Exception):
    """The file cannot be opened any more."""


class FileChanged(FileGone):
    """The file is not the one that was verified (L25)."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that was opened once; whoever has it closes it."""

    descriptor: int
    identity: FileIdentity
    links: int

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)


def open_file(root: Path, path: str, expected: FileIdentity | None) -> OpenFile:
    """Open a file of the tree; raise ``FileChanged`` if it is not the expected one, or ``FileGone``."""
    try:
        descriptor = open_beneath(root, path)
    except (TreeError, OSError) as error:
        raise FileGone(f"{path}: {error}") from error
    status = os.fstat(descriptor)
    identity = FileIdentity.of(status)
    if expected is not None and identity != expected:
        os.close(descriptor)
        raise FileChanged(f"{path} is not the file that was verified")
    return OpenFile(descriptor, identity, status.st_nlink)


def conditions_of(call: Call) -> Conditions:
    """Take the selecting headers from a request."""
    return Conditions(
        call.header(b"range"), call.header(b"if-range"), call.header(b"if-match"), call.header(b"if-none-match")
    )


@dataclass(frozen=True, slots=True)
class FileSender:
    """Answers requests with files; reading runs on ``threads``."""

    threads: ThreadPoolExecutor

    async def open(self, root: Path, path: str, expected: FileIdentity | None) -> OpenFile:
        """Open a file off the event loop; raise as ``open_file`` does."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self.threads, open_file, root, path, expected)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_close_late)
            raise

    async def answer(self, call: Call, file: OpenFile, etag: str, headers: Headers) -> None:
        """Send what the request selects of an open file, and close it."""
        try:
            selection = select(conditions_of(call), etag, file.identity.size, head=call.method == "HEAD")
            response = _response(selection, file.identity.size, etag, headers)
            await call.start(
                response.status, [*response.headers, (b"etag", etag.encode()), (b"accept-ranges", b"bytes")]
            )
            if call.method == "HEAD" or not response.pieces:
                await call.send({"type": "http.response.body", "body": b""})
            else:
                await self._stream(call, file, response.pieces)
        finally:
            file.close()

    async def _stream(self, call: Call, file: OpenFile, pieces: Sequence[bytes | Part]) -> None:
        """Send the pieces; when that cannot be finished the connection breaks, so that nobody takes them for whole."""
        gone = asyncio.ensure_future(_disconnected(call))
        pace = _Pace()
        try:
            for piece in pieces:
                if gone.done():
                    return
                if isinstance(piece, bytes):
                    await _taken(call, piece)
                else:
                    await self._send_part(call, file, piece, pace, gone)
            if not gone.done():
                await call.send({"type": "http.response.body", "body": b""})
        except FileChanged as error:
            _log.warning("download broken off: %s", error)
        except TimeoutError:
            _log.info("download broken off: the client took nothing for %.0f s", STALL_SECONDS)
        finally:
            gone.cancel()

    async def _send_part(self, call: Call, file: OpenFile, part: Part, pace: _Pace, gone: asyncio.Future[None]) -> None:
        loop = asyncio.get_running_loop()
        position = part.first
        while position <= part.last and not gone.done():
            length = min(pace.chunk, part.last + 1 - position)
            # Shielded: a cancelled request must not close the descriptor under a thread that reads from it.
            chunk = await _finished(loop.run_in_executor(self.threads, _read, file, position, length))
            position += len(chunk)
            started = loop.time()
            await _taken(call, chunk)
            pace.took(len(chunk), loop.time() - started)


@dataclass(slots=True)
class _Pace:
    """How much is read at once for a client."""

    chunk: int = FIRST_BYTES
    _sent: int = 0

    def took(self, size: int, seconds: float) -> None:
        """Learn how long the client took for a chunk."""
        self._sent += size
        self.chunk = CHUNK_BYTES if self._sent >= EAGER_BYTES and seconds < EAGER_SECONDS else FIRST_BYTES


async def _taken(call: Call, body: bytes) -> None:
    """Send bytes; raise ``TimeoutError`` if the client takes nothing for too long."""
    async with asyncio.timeout(STALL_SECONDS):
        await call.send({"type": "http.response.body", "body": body, "more_body": True})


async def _finished(reading: asyncio.Future[bytes]) -> bytes:
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait({reading})
        raise


def _read(file: OpenFile, position: int, length: int) -> bytes:
    chunk = os.pread(file.descriptor, length, position)
    status = os.fstat(file.descriptor)
    now = FileIdentity.of(status)
    # A file that is taken away while it is sent (links) is the same file; ctime tells of writers that set mtime back.
    unwritten = now == file.identity or (
        status.st_nlink != file.links and now == file.identity._replace(ctime_ns=now.ctime_ns)
    )
    if not chunk or not unwritten:
        raise FileChanged("the file was written to while it was sent")
    return chunk


async def _disconnected(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass


def _close_late(future: asyncio.Future[OpenFile]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Headers
    pieces: tuple[bytes | Part, ...] = ()


def _response(selection: Selection, size: int, etag: str, headers: Headers) -> _Response:
    match selection:
        case Whole():
            whole = (Part(0, size - 1),) if size else ()
            return _Response(200, [*headers, (b"content-length", b"%d" % size)], whole)
        case Part(first, last):
            length = (b"content-length", b"%d" % (last + 1 - first))
            return _Response(206, [*headers, length, (b"content-range", _place(selection, size))], (selection,))
        case Parts(parts):
            return _multipart(parts, size, etag, headers)
        case NotModified():
            return _Response(304, headers)
        case PreconditionFailed():
            raise HttpError(412, "precondition_failed", "the file has another ETag than If-Match names")
        case NotSatisfiable():
            where_not = {"content-range": f"bytes */{size}"}
            raise HttpError(416, "range_not_satisfiable", f"the file has {size} bytes", where_not)
        case _:
            assert_never(selection)


def _multipart(parts: Sequence[Part], size: int, etag: str, headers: Headers) -> _Response:
    """Return a ``multipart/byteranges`` (RFC 9110, section 14.6)."""
    # From the digest of the file's bytes, so they cannot have been made to contain it.
    boundary = hashlib.sha256(b"byteranges %s" % etag.encode()).hexdigest()[:32].encode()
    kind = next((value for name, value in headers if name == b"content-type"), b"application/octet-stream")
    pieces: list[bytes | Part] = []
    for part in parts:
        lines = b"\r\n--%s\r\ncontent-type: %s\r\ncontent-range: %s\r\n\r\n"
        pieces += [lines % (boundary, kind, _place(part, size)), part]
    pieces.append(b"\r\n--%s--\r\n" % boundary)
    total = sum(len(piece) if isinstance(piece, bytes) else piece.last + 1 - piece.first for piece in pieces)
    others = [(name, value) for name, value in headers if name != b"content-type"]
    multipart = (b"content-type", b"multipart/byteranges; boundary=" + boundary)
    return _Response(206, [*others, multipart, (b"content-length", b"%d" % total)], tuple(pieces))


def _place(part: Part, size: int) -> bytes:
    return b"bytes %d-%d/%d" % (part.first, part.last, size)
