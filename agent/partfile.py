"""A package file on its way: ``<sha256>.part`` while it arrives, ``<sha256>`` when it is whole and verified.

Beside it, ``<sha256>.etag`` remembers which entity of which source the part is a piece of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import durable
from agent.codes import Code
from agent.errors import LocalFailure, TrustRefused, local_failure
from agent.platform.files import FILES

_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entity:
    """What a part is a piece of: a strong entity tag, and the URL it holds for."""

    url: str
    etag: str


class PartFile:
    """An open part. ``offset`` bytes of it are there and in the digest."""

    def __init__(self, folder: Path, sha256: str, size: int, descriptor: int) -> None:
        self._sha256 = sha256
        self._size = size
        self._whole = folder / sha256
        self._part = folder / f"{sha256}.part"
        self._etag = folder / f"{sha256}.etag"
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self.offset = 0
        self.resumed = False
        """Whether bytes of more than one answer are in it."""

    @property
    def complete(self) -> bool:
        """Whether all announced bytes are there, right or wrong."""
        return self.offset == self._size

    @property
    def missing(self) -> int:
        """How many bytes are still to come."""
        return self._size - self.offset

    @property
    def verified(self) -> bool:
        """Whether the bytes are the announced ones."""
        return self.complete and self._digest.hexdigest() == self._sha256

    def entity(self) -> Entity | None:
        """Return what the part is a piece of, if that is known."""
        try:
            raw = json.loads(self._etag.read_bytes())
            return Entity(str(raw["url"]), str(raw["etag"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # unknown is a good answer: the digest decides in the end

    def remember(self, entity: Entity | None) -> None:
        """Note what the part is a piece of; raise ``LocalFailure``."""
        if entity is None:
            durable.remove(self._etag)
        else:
            durable.replace_file(self._etag, json.dumps({"url": entity.url, "etag": entity.etag}).encode())

    def append(self, piece: bytes) -> None:
        """Add bytes; raise ``TrustRefused`` (SIZE_MISMATCH) instead of growing beyond the announced size."""
        if len(piece) > self.missing:
            raise TrustRefused(
                Code.SIZE_MISMATCH, f"more bytes come than the announced {self._size}; the file was discarded"
            )
        try:
            view = memoryview(piece)
            while view:
                written = FILES.write_at(self._descriptor, view, self.offset)
                self._digest.update(view[:written])
                self.offset += written
                view = view[written:]
        except OSError as error:
            raise local_failure(error, f"write {self._part}") from error

    def restart(self) -> None:
        """Forget every byte; raise ``LocalFailure``."""
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError as error:
            raise local_failure(error, f"empty {self._part}") from error
        self._digest = hashlib.sha256()
        self.offset, self.resumed = 0, False
        self.remember(None)

    def finish(self) -> Path:
        """Make the verified part the whole file, durably; raise ``LocalFailure``."""
        if not self.verified:
            raise RuntimeError("finish() before the part is verified")
        try:
            FILES.sync(self._descriptor)
            FILES.replace(self._part, self._whole)
            durable.sync_folder(self._whole.parent)
        except OSError as error:
            raise local_failure(error, f"keep {self._whole}") from error
        durable.remove(self._etag)
        return self._whole

    def discard(self) -> None:
        """Remove the part; raise ``LocalFailure``."""
        durable.remove(self._part)
        durable.remove(self._etag)

    def load(self) -> None:
        """Take what an earlier cycle left into the digest; raise ``LocalFailure``."""
        try:
            with os.fdopen(self._descriptor, "rb", closefd=False) as file:
                while block := file.read(_BLOCK):
                    self._digest.update(block)
                    self.offset += len(block)
        except OSError as error:
            raise local_failure(error, f"read {self._part}") from error
        self.resumed = self.offset > 0


@contextlib.contextmanager
def open_part(folder: Path, sha256: str, size: int) -> Iterator[PartFile]:
    """Open or create the part of a file; one that is too long is emptied. Raises ``LocalFailure``."""
    path = folder / f"{sha256}.part"
    try:
        descriptor = FILES.open(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise local_failure(error, f"open {path}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LocalFailure(Code.IO, f"{path} is not a regular file; remove it")
        part = PartFile(folder, sha256, size, descriptor)
        if os.fstat(descriptor).st_size > size:
            part.restart()
        part.load()
        yield part
    finally:
        os.close(descriptor)


def reusable(path: Path, sha256: str, size: int) -> bool:
    """Whether a whole file is already there with exactly the announced bytes; anything else there is removed.

    Raises ``LocalFailure``.
    """
    try:
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size == size:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                    return True
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise local_failure(error, f"read {path}") from error
    return False
