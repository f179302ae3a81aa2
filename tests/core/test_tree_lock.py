"""The lock on a tree: exclusive, freed by any end, never through a link (L17)."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from core.files import python

from repo_server.tree.treeio import (
    LOCK_NAME,
    Busy,
    tree_lock,
)


def test_the_lock_is_exclusive_within_a_process_and_free_again_afterwards(tree: Path) -> None:
    """L17."""
    with tree_lock(tree):
        with pytest.raises(Busy, match="another operation is working on"), tree_lock(tree):
            pytest.fail("two hold the lock")
        with pytest.raises(Busy), tree_lock(tree):
            pytest.fail("a failed attempt gave the lock away")
    with tree_lock(tree):
        assert (tree / LOCK_NAME).exists()
    with pytest.raises(KeyError), tree_lock(tree):
        raise KeyError
    with tree_lock(tree):
        pass


HOLDER = """
    import sys
    from pathlib import Path
    from repo_server.tree.treeio import tree_lock
    with tree_lock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, None], ids=["killed", "finished"])
def test_the_lock_is_exclusive_across_processes_and_outlives_none(tree: Path, end: signal.Signals | None) -> None:
    """L17: a killed holder leaves nothing that an operator would have to clear."""
    holder = python(HOLDER, str(tree))
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Busy), tree_lock(tree):
            pytest.fail("two processes hold the lock")
        if end is not None:
            holder.send_signal(end)
        holder.communicate(timeout=60)
        with tree_lock(tree):
            pass
    finally:
        holder.kill()
        holder.communicate(timeout=60)


def test_a_program_that_a_holder_starts_does_not_inherit_the_lock(tree: Path) -> None:
    """L17."""
    with tree_lock(tree):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with tree_lock(tree):
            pass
    finally:
        child.kill()
        child.wait(timeout=60)


def test_the_lock_is_not_taken_through_a_link(tree: Path, tmp_path: Path) -> None:
    """L29: nor is the link's target created."""
    (tree / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), tree_lock(tree):
        pytest.fail("locked something outside the tree")
    assert not (tmp_path / "elsewhere").exists()
