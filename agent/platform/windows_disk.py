"""What Windows can and cannot do with files that somebody holds: the port ``Disk``."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.platform.patience import Patience
from agent.platform.win32 import Win32, file_error
from agent.ports import Clock

_REPLACE_EXISTING, _DELAY_UNTIL_REBOOT, _WRITE_THROUGH = 0x1, 0x4, 0x8


class WindowsDisk:
    """The ``Disk`` port on Windows.

    There is no call that exchanges two folders; the journal and two renames take its place, and ``Installer.restore``
    mends what lies between them.
    """

    def __init__(self, api: Win32, clock: Clock) -> None:
        self._api = api
        self._patience = Patience(clock.monotonic, clock.sleep)

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes may be written on a folder's volume."""
        return shutil.disk_usage(folder).free

    def exchange(self, one: Path, other: Path) -> bool:  # noqa: ARG002 -- the port's signature
        """Return ``False``: no file system of Windows can."""
        return False

    def rename(self, one: Path, other: Path) -> None:
        """Rename a folder, again and again while somebody holds a file in it; raise ``OSError`` after that."""
        self._patience.until_free(lambda: self._move(one, other))

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

    def _move(self, one: Path, other: Path) -> None:
        # Written through: there is no flush of a folder that could do it later.
        if not self._api.kernel32.MoveFileExW(str(one), str(other), _WRITE_THROUGH):
            raise file_error("MoveFileExW", self._api.last_error(), one)
