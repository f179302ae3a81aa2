"""One spool per worker, and what becomes of them when there are fewer workers."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from repo_server.store.spool import SUFFIX
from repo_server.tree.treeio import sync_folder

_NAME = re.compile(r"spool-([1-9][0-9]*)")


def spool_name(worker: int) -> str:
    """Return the folder of a worker's spool, in the state folder; the first one's is that of a single process."""
    return "spool" if worker == 0 else f"spool-{worker}"


def gather_spools(state: Path, workers: int) -> None:
    """Move what workers that there are no longer left behind to the first one; raise ``OSError``.

    Called before any spool is opened. Killed at any point, every segment is in one place.
    """
    home = state / spool_name(0)
    for folder in sorted(state.glob("spool-*")):
        number = _NAME.fullmatch(folder.name)
        if number is None or int(number[1]) < workers:
            continue
        with contextlib.suppress(FileExistsError):
            home.mkdir(mode=0o700)
        taken = [int(path.stem) for path in home.glob(f"*{SUFFIX}") if path.stem.isdecimal()]
        last = max(taken, default=0)
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            last += 1
            path.rename(home / f"{last:020}{SUFFIX}")
        sync_folder(home)
        with contextlib.suppress(OSError):  # what is damaged or refused stays for people to look at
            folder.rmdir()
