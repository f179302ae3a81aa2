"""Which exit code belongs to what kept a server from starting (design §11)."""

from __future__ import annotations

import errno
import os

from repo_server.access.auth import CredentialsInvalid
from repo_server.settings import SettingsInvalid, Unsafe
from repo_server.statefolder import StateExposed, StateInUse
from repo_server.store import UrlInvalid
from repo_server.web.listener import TlsUnusable

FAILED, USAGE, REFUSED, BUSY = 1, 2, 3, 4

_CODES: tuple[tuple[tuple[type[Exception], ...], int], ...] = (
    ((SettingsInvalid, UrlInvalid, TlsUnusable, CredentialsInvalid), USAGE),
    ((Unsafe, StateExposed), REFUSED),
    ((StateInUse,), BUSY),
)


_ADVICE = {
    errno.ENOENT: "does not exist; check the path",
    errno.ENOTDIR: "leads through something that is no folder; check the path",
    errno.EISDIR: "is a folder; expected a file",
    errno.EACCES: "may not be read or written by this account; run as the server's own, or give it the right",
    errno.EPERM: "may not be changed by this account; run as the server's own, or give it the right",
    errno.EROFS: "is on a read-only file system; take another place",
    errno.ENOSPC: "is on a disk that is full; make room",
    errno.EDQUOT: "is on a disk whose quota is used up; make room",
}


def sentence(error: object) -> str:
    """Return what is wrong, and for what the operating system says also what to do."""
    if not isinstance(error, OSError):
        return str(error)
    if not error.filename:
        return error.strerror or str(error)
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return f"{path} {_ADVICE.get(error.errno or 0, f'cannot be used: {error.strerror}')}"


def exit_code(error: Exception) -> int:
    """Return the exit code for an error."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), FAILED)
