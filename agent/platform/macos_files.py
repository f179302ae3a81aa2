"""Files on macOS: POSIX, but ``fsync`` leaves data in the drive's cache (``files.py``, promise 1)."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("these are the calls of macOS; expected agent.platform.windows_files on Windows")

import errno
import fcntl
import os
from collections.abc import Callable

from agent.platform.posix_files import PosixFiles

_F_FULLFSYNC = 51
_REFUSED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY})
"""Network and foreign file systems do not have it."""


def full_fsync(descriptor: int) -> None:
    """Flush a file, and then the cache of its whole drive (fcntl(2) on macOS)."""
    fcntl.fcntl(descriptor, _F_FULLFSYNC)


class MacFiles(PosixFiles):
    """The calls of macOS.

    The many files of a package are flushed with ``fsync`` each; the one ``sync_folder`` at the end empties the drive's
    cache for all of them.
    """

    __slots__ = ("_flush",)

    def __init__(self, flush: Callable[[int], None] = full_fsync) -> None:
        self._flush = flush

    def sync(self, descriptor: int) -> None:
        """Make what was written durable, in the drive as well."""
        try:
            self._flush(descriptor)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            os.fsync(descriptor)
