"""What Linux can do beyond ``os``: the ports ``Disk`` and parts of ``Programs`` by system calls."""

from __future__ import annotations

import sys

if not sys.platform.startswith("linux"):
    raise ImportError(f"these are the calls of Linux; expected another adapter on {sys.platform}")

import ctypes
import errno
import os
import platform
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}
_CANNOT_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM})
_PR_SET_PDEATHSIG = 1


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one atomic call; return ``False`` where kernel or file system cannot."""
    number = _RENAMEAT2.get(platform.machine())
    if number is None:
        return False
    # An audit event as os.rename has one: whoever watches the agent's file operations sees this one as well.
    sys.audit("agent.exchange", str(one), str(other))
    libc = ctypes.CDLL(None, use_errno=True)
    paths = (ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other)))
    at = ctypes.c_int(_AT_FDCWD)
    if libc.syscall(ctypes.c_long(number), at, paths[0], at, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def die_with_parent() -> None:
    """Make the kernel kill the calling process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 9)


class LinuxDisk:
    """The ``Disk`` port on Linux."""

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes may be written on a folder's volume."""
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize

    def exchange(self, one: Path, other: Path) -> bool:
        """Exchange two folders atomically (``renameat2``)."""
        return exchange(one, other)

    def remove_at_boot(self, path: Path) -> bool:  # noqa: ARG002 -- the port's signature
        """Return ``False``: what cannot be removed now cannot be removed then."""
        return False

    def rename(self, one: Path, other: Path) -> None:
        """Rename a folder; nobody can hold it."""
        one.rename(other)
