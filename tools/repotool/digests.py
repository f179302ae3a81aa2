"""The digest of a file that the operator names."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from repotool.errors import ToolError

CHUNK = 1024 * 1024
"""Bytes that are read at a time."""

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of bytes that were just worked through."""


@dataclass(frozen=True, slots=True)
class Digest:
    """SHA-256 in hex and size in bytes."""

    sha256: str
    size: int


def silent(_bytes: int) -> None:
    """Report progress to nobody."""


def open_source(path: Path) -> int:
    """Open a regular file for reading and return its descriptor; raise ``ToolError``."""
    try:
        # O_NONBLOCK: a FIFO would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ToolError(f"there is no file {path}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ToolError(f"{path} is not a regular file; a release is one file")
    return descriptor


def digest(path: Path, progress: Progress = silent) -> Digest:
    """Read a file once and return its digest; raise ``ToolError`` or ``OSError``."""
    hasher, size = hashlib.sha256(), 0
    with os.fdopen(open_source(path), "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
            size += len(chunk)
            progress(len(chunk))
    return Digest(hasher.hexdigest(), size)
