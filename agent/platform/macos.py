"""What macOS can do beyond ``os``: the port ``Disk`` by system calls."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

_RENAME_SWAP = 2
_CANNOT_SWAP = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

RenameX = Callable[[bytes, bytes, int], int]
"""``renamex_np``: returns 0, or the error number."""


def renamex_np(one: bytes, other: bytes, flags: int) -> int:
    """Call the system's ``renamex_np`` (macOS 10.12); ENOSYS where there is none."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renamex_np"):
        return errno.ENOSYS
    function = library.renamex_np
    function.argtypes, function.restype = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint), ctypes.c_int
    return 0 if function(one, other, flags) == 0 else ctypes.get_errno()


class MacDisk:
    """The ``Disk`` port on macOS: APFS swaps two folders in one call, HFS+ does not."""

    def __init__(self, renamex: RenameX = renamex_np) -> None:
        self._renamex = renamex

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes may be written on a folder's volume."""
        return shutil.disk_usage(folder).free

    def exchange(self, one: Path, other: Path) -> bool:
        """Exchange two folders atomically (``renamex_np`` with ``RENAME_SWAP``)."""
        sys.audit("agent.exchange", str(one), str(other))
        number = self._renamex(os.fsencode(one), os.fsencode(other), _RENAME_SWAP)
        if number == 0:
            return True
        if number in _CANNOT_SWAP:
            return False
        raise OSError(number, os.strerror(number), str(one), None, str(other))

    def remove_at_boot(self, path: Path) -> bool:  # noqa: ARG002 -- the port's signature
        """Return ``False``: what cannot be removed now cannot be removed then."""
        return False

    def rename(self, one: Path, other: Path) -> None:
        """Rename a folder."""
        one.rename(other)
