"""Owners and permission bits (``access.py``)."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("these are the rights of POSIX; expected agent.platform.windows_access on Windows")

import os
import stat
from pathlib import Path

from agent.platform.flaw import Flaw

_PRIVATE, _PUBLIC = 0o700, 0o755


class PosixAccess:
    """Owners and permission bits."""

    def may_act(self, root_dir: Path, *, whole_machine: bool) -> bool:
        """Whether this user may change an endpoint: root, and the owner of one that is relocated."""
        if os.geteuid() == 0:
            return True
        # Not Path.exists(): that raises for folders that we may not look into.
        existing = next(folder for folder in (root_dir, *root_dir.parents) if os.path.lexists(folder))
        return not whole_machine and existing.lstat().st_uid == os.geteuid()

    def who_may(self) -> str:
        """Return what those who may not act are told."""
        return "only root may do this; run it with sudo"

    def make_folder(self, folder: Path, *, private: bool) -> Flaw | None:
        """Make a folder that only its owner can change, or tighten the one that is there.

        ``private``: others cannot read it either. A folder of somebody else is left alone and returned as a flaw.
        """
        mode = _PRIVATE if private else _PUBLIC
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=mode, exist_ok=True)
        status = folder.stat()
        if status.st_uid not in {0, os.geteuid()}:
            found = f"{folder} belongs to user {status.st_uid}, who could change what is installed; expected root"
            return Flaw(found, f"chown root {folder}")
        if stat.S_IMODE(status.st_mode) & ~mode & 0o777:
            folder.chmod(mode)
        return None

    def flaw(self, path: Path, *, secret: bool) -> Flaw | None:
        """Return why a file or folder cannot be trusted: others own it, can write it, or read it if ``secret``."""
        status = path.stat()
        if status.st_uid not in {0, os.geteuid()}:
            return Flaw(f"{path} belongs to user {status.st_uid}; expected root", f"chown root {path}")
        mode = stat.S_IMODE(status.st_mode)
        # In a sticky folder nobody can replace what belongs to somebody else.
        folder = stat.S_ISDIR(status.st_mode)
        if mode & 0o022 and not (folder and mode & stat.S_ISVTX):
            wanted = "755" if folder else "600"
            return Flaw(f"{path} can be written by others (mode {mode:04o})", f"chmod {wanted} {path}")
        if secret and mode & 0o044:
            return Flaw(f"{path} holds a secret and can be read by others (mode {mode:04o})", f"chmod 600 {path}")
        return None
