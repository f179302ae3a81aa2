"""The calls on files that differ between systems: ``FILES`` is this system's way. Standard library only, and little.

Each adapter has the same methods, which hold no state:

- ``open`` and ``open_at_once`` follow no link, and no child inherits what they open;
- ``replace`` puts a file in another's place in one call, ``remove`` and ``remove_tree`` take away;
- ``sync``, ``sync_file`` and ``sync_folder`` make durable;
- ``lock`` excludes other processes until the descriptor is closed, however that happens;
- ``hold`` gives a folder that stays the same one while it is held, wherever its name leads;
- ``is_folder`` and ``is_link`` know what leads elsewhere on this system;
- ``copy_access`` gives a copy what its original has of owner and rights.

All raise ``OSError`` with the usual ``errno``.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.platform == "win32":
    from agent.platform.win32 import load_win32
    from agent.platform.windows_files import WindowsFiles
    from agent.platform.windows_files import WindowsHeldFolder as HeldFolder

    FILES = WindowsFiles(load_win32())
elif sys.platform == "darwin":
    from agent.platform.macos_files import MacFiles
    from agent.platform.posix_files import HeldFolder

    FILES = MacFiles()
else:
    from agent.platform.posix_files import HeldFolder, PosixFiles

    FILES = PosixFiles()

__all__ = ["FILES", "HeldFolder", "remove_any"]


def remove_any(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; a file that is not there is removed already."""
    if path.is_dir() and not path.is_symlink():
        FILES.remove_tree(path)
    else:
        FILES.remove(path)
