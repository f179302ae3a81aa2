"""One look at a tree with the server's own scanner: what it offers, what it does not, and why (L8)."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from repo_server.core.model import Problem
from repo_server.tree import ledger
from repo_server.tree.live import ScanResult
from repo_server.tree.removal import MARKER
from repo_server.tree.treeio import write_atomic
from repotool.tree import Tree


@dataclass(frozen=True, slots=True)
class Eyes:
    """Where digests are remembered between looks; ``server_state`` is only read."""

    cache: Path
    server_state: Path | None = None


def look(tree: Tree, eyes: Eyes, now: datetime) -> ScanResult:
    """Scan a tree and write nothing into it; hashes what changed since the last look (L25)."""
    # Most verbs need no scanner, and it is most of what would be loaded.
    from repo_server.tree.scan import Scanner, ScanOptions

    with _state(eyes) as state:
        scanner = Scanner(tree.root, state, ScanOptions(observer=True))
        try:
            return scanner.full(now)
        finally:
            scanner.close()


def accept_removal(tree: Tree) -> None:
    """Tell the server that releases which are gone are meant to be gone (L26)."""
    write_atomic(tree.root / MARKER, b"")


def since(tree: Tree, problem: Problem) -> datetime:
    """Return since when a problem can have been there: the file has not changed since."""
    try:
        changed = (tree.root / problem.path).lstat().st_ctime
    except (OSError, ValueError):
        return problem.since
    return min(problem.since, datetime.fromtimestamp(changed, UTC))


@contextlib.contextmanager
def _state(eyes: Eyes) -> Iterator[Path]:
    if eyes.server_state is None:
        yield eyes.cache
        return
    from repo_server.tree import cache

    # A copy: a running server writes there, and the files must stay its own.
    with tempfile.TemporaryDirectory(prefix="repotool-") as copy:
        for name in (cache.NAME, ledger.STATE_NAME):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(eyes.server_state / name, Path(copy) / name)
        yield Path(copy)
