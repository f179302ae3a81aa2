"""The exception tree of the agent. Every failure carries a ``Code``; the message is for people.

::

    AgentError               code, and a message: expected, found, what to do
    ├── ConfigInvalid        updater.conf or the pinned root.json: CONFIG_INVALID, CONFIG_UNSAFE, ROOT_INVALID
    ├── NetworkFailure       what came from the network is no usable answer; says when to try again
    ├── TrustRefused         an offer or a file that must not be installed: signature, digest, downgrade, floor
    ├── PackageRefused       an archive or its package.toml that breaks a rule (L40, L41)
    └── LocalFailure         what this machine's disk says: DISK_FULL, PERMISSION, IO, STATE_DAMAGED

The engine raises ``AgentError`` itself for services, hooks and the lock. A wrong call order is a programming error
and raises ``RuntimeError``, never one of these.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from agent.codes import Code
from repo_server.core.names import printable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class AgentError(Exception):
    """Something failed; ``code`` is stable and machine-readable, the message is for people (FR-LOG-001)."""

    def __init__(self, code: Code, message: str) -> None:
        # Names of files need not be text, but what is reported and written into the status has to be.
        self.message = message.encode(errors="backslashreplace").decode()
        super().__init__(self.message)
        self.code = code


class ConfigInvalid(AgentError):
    """The configuration is malformed, or not protected as it must be (FR-CFG-004)."""


class NetworkFailure(AgentError):
    """A request got no usable answer (EH-CLI-001)."""

    def __init__(
        self, code: Code, message: str, *, retry_after_seconds: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(code, message)
        self.retry_after_seconds = retry_after_seconds
        """When the server wants to be asked again, within bounds; ``None`` if it did not say."""
        self.status = status
        """The HTTP status, if there was an answer at all."""


class TrustRefused(AgentError):
    """An offer or a downloaded file is not what the release keys signed, or may not be installed (EH-CLI-002)."""


class PackageRefused(AgentError):
    """An archive breaks a rule for packages (L40, L41)."""


class LocalFailure(AgentError):
    """This machine's disk refused something (EH-CLI-003)."""


def local_failure(error: OSError, doing: str) -> LocalFailure:
    """Wrap what the disk said; ``doing`` completes the sentence "cannot …"."""
    reason = error.strerror or str(error)
    where = error.filename
    if isinstance(where, str | bytes | os.PathLike) and (shown := printable(os.fsdecode(where))) not in doing:
        reason = f"{reason} ({shown:.300})"
    if error.errno in _FULL:
        return LocalFailure(Code.DISK_FULL, f"cannot {doing}: {reason}; free some space, then try again")
    if error.errno in _FORBIDDEN:
        return LocalFailure(Code.PERMISSION, f"cannot {doing}: {reason}; run the updater as root, or mend the owner")
    return LocalFailure(Code.IO, f"cannot {doing}: {reason}")


@contextlib.contextmanager
def as_local_failure(doing: str) -> Iterator[None]:
    """Wrap what the disk says inside; ``doing`` completes the sentence "cannot …"."""
    try:
        yield
    except OSError as error:
        raise local_failure(error, doing) from error
