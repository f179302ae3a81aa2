"""Which exit code belongs to what kept a server from starting (design §11)."""

from __future__ import annotations

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


def exit_code(error: Exception) -> int:
    """Return the exit code for an error."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), FAILED)
