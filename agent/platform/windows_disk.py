"""What Windows can and cannot do with files that somebody holds: the port ``Disk``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from agent.platform.win32 import (
    ERROR_ACCESS_DENIED,
    ERROR_LOCK_VIOLATION,
    ERROR_SHARING_VIOLATION,
    Win32,
)
from agent.ports import Clock

PATIENCE_SECONDS = 20.0
"""How long a held file is waited for: virus scanners and indexers let go after seconds."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
_HELD = frozenset({ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION})
_REPLACE_EXISTING, _DELAY_UNTIL_REBOOT = 0x1, 0x4


class WindowsDisk:
    """The ``Disk`` port on Windows.

    There is no call that exchanges two folders; the journal and two renames take its place, and ``Installer.restore``
    mends what lies between them.
    """

    def __init__(self, api: Win32, clock: Clock, rename: Callable[[Path, Path], None] = os.rename) -> None:
        self._api = api
        self._clock = clock
        self._rename = rename

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes may be written on a folder's volume."""
        return shutil.disk_usage(folder).free

    def exchange(self, one: Path, other: Path) -> bool:  # noqa: ARG002 -- the port's signature
        """Return ``False``: no file system of Windows can."""
        return False

    def rename(self, one: Path, other: Path) -> None:
        """Rename a folder, again and again while somebody holds a file in it; raise ``OSError`` after that."""
        deadline = self._clock.monotonic() + PATIENCE_SECONDS
        pause = FIRST_PAUSE
        while True:
            try:
                self._rename(one, other)
            except OSError as error:
                if getattr(error, "winerror", None) not in _HELD or self._clock.monotonic() >= deadline:
                    raise
            else:
                return
            self._clock.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def replace_at_reboot(self, new: Path, target: Path) -> None:
        """Make Windows put a file in another's place at the next boot, before any service; the last resort.

        For single files that never let go. Both lie on one volume. Raises ``WindowsFailure``.
        """
        self._at_reboot(new, str(target))

    def remove_at_reboot(self, path: Path) -> None:
        """Make Windows remove a file, or an empty folder, at the next boot; raise ``WindowsFailure``."""
        self._at_reboot(path, None)

    def _at_reboot(self, path: Path, target: str | None) -> None:
        flags = _DELAY_UNTIL_REBOOT | (0 if target is None else _REPLACE_EXISTING)
        if not self._api.kernel32.MoveFileExW(str(path), target, flags):
            raise self._api.failure("MoveFileExW")
