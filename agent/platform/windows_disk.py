"""What Windows can and cannot do with files that somebody holds: the port ``Disk``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agent.platform.patience import Patience
from agent.platform.win32 import Win32, file_error
from agent.platform.windows_files import is_reparse_point
from agent.ports import Clock

_DELAY_UNTIL_REBOOT, _WRITE_THROUGH = 0x4, 0x8


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

    def remove_at_boot(self, path: Path) -> bool:
        """Have Windows remove a file, or a folder with all in it, at the next boot, before any service.

        There is no ``replace_at_boot``: after it the manifest would name a version that does not run. An update whose
        files are held to the end is taken back.
        """
        if path.is_dir() and not is_reparse_point(path.lstat()):
            for folder, folders, files in os.walk(path, topdown=False):
                for name in (*files, *folders):
                    self._at_boot(Path(folder, name))
        self._at_boot(path)
        return True

    def _at_boot(self, path: Path) -> None:
        if not self._api.kernel32.MoveFileExW(str(path), None, _DELAY_UNTIL_REBOOT):
            raise file_error("MoveFileExW", self._api.last_error(), path)

    def _move(self, one: Path, other: Path) -> None:
        # Written through: there is no flush of a folder that could do it later.
        if not self._api.kernel32.MoveFileExW(str(one), str(other), _WRITE_THROUGH):
            raise file_error("MoveFileExW", self._api.last_error(), one)
