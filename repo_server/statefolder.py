"""The state folder: private, and one server at a time (design §11).

::

    StateError
    ├── StateInUse      another server holds it (exit code 4)
    ├── StateExposed    others can read it, or the file in question (exit code 3)
    └── StateUnusable   it is not there, cannot be made, or is no folder (exit code 1)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

LOCK_NAME = "lock"
_EXPOSED = stat.S_IRWXO | stat.S_IWGRP
"""Group members may read, so that a service account can be given a secret; nobody else may do anything."""


class StateError(Exception):
    """The state folder cannot be used as it is."""


class StateInUse(StateError):
    """Another server runs on the folder."""


class StateExposed(StateError):
    """Accounts that have no business there can read or change the server's own data (NFR-SEC-007)."""


class StateUnusable(StateError):
    """The state folder is not there, cannot be made, or is no folder."""


def prepare(folder: Path) -> None:
    """Make the folder, private, if it is missing; raise ``StateExposed`` or ``StateUnusable``."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise StateUnusable(f"--state {folder} cannot be made: {error.strerror}; take another place") from None
    require_state(folder)


def require_state(folder: Path) -> None:
    """Raise ``StateUnusable`` or ``StateExposed`` unless a folder is there and private."""
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except OSError as error:
        advice = "expected the state folder of a server" if isinstance(error, FileNotFoundError) else "look at the path"
        raise StateUnusable(f"--state {folder}: {error.strerror}; {advice}") from None
    if not is_folder:
        raise StateUnusable(f"--state {folder} is not a folder; take another place")
    require_private(folder)


def require_private(path: Path) -> None:
    """Raise ``StateExposed`` if others can get at a file or folder."""
    mode = path.stat().st_mode
    if mode & _EXPOSED:
        kind, wanted = ("folder", "0700") if stat.S_ISDIR(mode) else ("file", "0600")
        raise StateExposed(
            f"{path} has mode {stat.S_IMODE(mode):04o}, so others can get at this {kind}; run: chmod {wanted} {path}"
        )


@contextlib.contextmanager
def held(folder: Path, name: str = LOCK_NAME, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock of the folder; raise ``StateInUse`` at once when another process has it, or ``wait`` for it.

    The lock goes with the process, however it ends.
    """
    with locked(folder / name, wait=wait):
        yield


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[int]:
    """Hold the lock on a file, and give its descriptor: whoever inherits that holds it too. Raises as ``held``."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise StateInUse(f"another repo-server uses {path.parent}; stop it, or give each its own --state") from None
        yield descriptor
    finally:
        os.close(descriptor)
