"""Sending files: opened safely, in chunks from worker threads, with flat memory (NFR-PER-002, L25, L29).

::

    FileGone         it is not there any more, or cannot be read
    └── FileChanged  it is not the file whose digest was verified (L25)
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from repo_server.http import Call, Headers, HttpError
from repo_server.ranges import (
    Conditions,
    NotModified,
    NotSatisfiable,
    Part,
    PreconditionFailed,
    Selection,
    Whole,
    select,
)
from repo_server.treeio import FileIdentity, TreeError, open_beneath

CHUNK_BYTES = 512 * 1024
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

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)


def open_file(root: Path, path: str, expected: FileIdentity | None) -> OpenFile:
    """Open a file of the tree; raise ``FileChanged`` if it is not the expected one, or ``FileGone``."""
    try:
        descriptor = open_beneath(root, path)
    except (TreeError, OSError) as error:
        raise FileGone(f"{path}: {error}") from error
    identity = FileIdentity.of(os.fstat(descriptor))
    if expected is not None and identity != expected:
        os.close(descriptor)
        raise FileChanged(f"{path} is not the file that was verified")
    return OpenFile(descriptor, identity)


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
            size = file.identity.size
            head = call.method == "HEAD"
            selection = select(conditions_of(call), etag, size, head=head)
            status, span, extra = _response(selection, size)
            start = [*headers, *extra, (b"etag", etag.encode()), (b"accept-ranges", b"bytes")]
            await call.start(status, start)
            if head or span is None:
                await call.send({"type": "http.response.body", "body": b""})
            else:
                await self._stream(call, file, span)
        finally:
            file.close()

    async def _stream(self, call: Call, file: OpenFile, span: Part) -> None:
        """Send the bytes; when that cannot be finished the connection breaks, so that nobody takes them for whole."""
        gone = asyncio.ensure_future(_disconnected(call))
        loop = asyncio.get_running_loop()
        position = span.first
        try:
            while position <= span.last and not gone.done():
                length = min(CHUNK_BYTES, span.last + 1 - position)
                # Shielded: a cancelled request must not close the descriptor under a thread that reads from it.
                reading = loop.run_in_executor(self.threads, _read, file, position, length)
                chunk = await _finished(reading)
                position += len(chunk)
                async with asyncio.timeout(STALL_SECONDS):
                    await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
            if position > span.last:
                await call.send({"type": "http.response.body", "body": b""})
        except FileChanged as error:
            _log.warning("download broken off: %s", error)
        except TimeoutError:
            _log.info("download broken off: the client took nothing for %.0f s", STALL_SECONDS)
        finally:
            gone.cancel()


async def _finished(reading: asyncio.Future[bytes]) -> bytes:
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait({reading})
        raise


def _read(file: OpenFile, position: int, length: int) -> bytes:
    chunk = os.pread(file.descriptor, length, position)
    now = os.fstat(file.descriptor)
    if not chunk or (now.st_size, now.st_mtime_ns) != (file.identity.size, file.identity.mtime_ns):
        raise FileChanged("the file was written to while it was sent")
    return chunk


async def _disconnected(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass


def _close_late(future: asyncio.Future[OpenFile]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


def _response(selection: Selection, size: int) -> tuple[int, Part | None, Headers]:
    match selection:
        case Whole():
            length = [(b"content-length", b"%d" % size)]
            return 200, Part(0, size - 1) if size else None, length
        case Part(first, last):
            where = (b"content-range", b"bytes %d-%d/%d" % (first, last, size))
            return 206, selection, [(b"content-length", b"%d" % (last + 1 - first)), where]
        case NotModified():
            return 304, None, []
        case PreconditionFailed():
            raise HttpError(412, "precondition_failed", "the file has another ETag than If-Match names")
        case NotSatisfiable():
            where_not = {"content-range": f"bytes */{size}"}
            raise HttpError(416, "range_not_satisfiable", f"the file has {size} bytes", where_not)
        case _:
            assert_never(selection)
