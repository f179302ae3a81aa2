"""Writing single files of a tree: never half, never over a link, always newer (L6, L18, L19, L25)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from core.files import DEEP, SECOND, python, read

from repo_server.core.names import is_temporary
from repo_server.tree.treeio import (
    LOCK_NAME,
    _move_on,  # the clock cannot be set to a nanosecond, so one test starts at the step after it
    publish,
    remove,
    remove_leftovers,
    sync_folder,
    temporary_beside,
    tree_lock,
    write_atomic,
)


def test_a_file_is_written_whole_with_its_mode_and_nothing_beside_it(tree: Path) -> None:
    """L18."""
    old = os.umask(0o077)
    try:
        write_atomic(tree / "x", b"one")
        write_atomic(tree / "secret", b"two", mode=0o600)
    finally:
        os.umask(old)
    assert (tree / "x").read_bytes() == b"one"
    assert (tree / "x").stat().st_mode & 0o7777 == 0o644
    assert (tree / "secret").stat().st_mode & 0o7777 == 0o600
    assert sorted(item.name for item in tree.iterdir()) == ["2026", "secret", "x"]


def test_temporary_names_are_ignored_names_in_the_same_folder(tree: Path) -> None:
    """L3, L18."""
    names = {temporary_beside(tree / DEEP) for _ in range(100)}
    assert len(names) == 100
    for path in names:
        assert path.parent == (tree / DEEP).parent
        assert is_temporary(path.name)
        assert not path.exists()


def test_a_link_under_the_name_is_replaced_and_its_target_left_alone(tree: Path) -> None:
    """L29: writing does not go through links either."""
    (tree / "target").write_bytes(b"target")
    (tree / "x").symlink_to("target")
    write_atomic(tree / "x", b"new")
    assert not (tree / "x").is_symlink()
    assert (tree / "target").read_bytes() == b"target"


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(tree: Path) -> None:
    """L18."""
    with pytest.raises(OSError, match="directory"):
        write_atomic(tree / "2026", b"x")
    with pytest.raises(FileNotFoundError):
        write_atomic(tree / "nowhere" / "x", b"x")
    assert [item.name for item in tree.iterdir()] == ["2026"]


def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(tree: Path) -> None:
    """L18: with a real limit on the size of files in a process of its own."""
    code = """
        import resource, sys
        from pathlib import Path
        from repo_server.tree.treeio import write_atomic
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_atomic(Path(sys.argv[1]), b"x" * 100_000)
        except OSError as error:
            print(error.strerror)
    """
    child = python(code, str(tree / DEEP))
    assert child.communicate(timeout=60)[0] == "File too large\n"
    assert read(tree, DEEP) == b"beta\n"
    assert [item.name for item in (tree / DEEP).parent.iterdir()] == [Path(DEEP).name]


@pytest.mark.parametrize(
    "ahead",
    [-5 * SECOND, -1, 0, 1, SECOND // 2, SECOND - 1, SECOND - 50, 5 * SECOND, 86400 * SECOND],
    ids=lambda value: f"old time {value} ns ahead",
)
def test_a_rewritten_file_is_at_least_one_whole_second_newer(tree: Path, ahead: int) -> None:
    """L19: however little time has passed, and also where the old time lies in the future."""
    path = tree / DEEP
    path_ns = path.stat().st_mtime_ns // SECOND * SECOND + ahead
    os.utime(path, ns=(path_ns, path_ns))
    for content in (b"alpha", b"beta\n", b"alpha"):
        before = path.stat().st_mtime_ns
        write_atomic(path, content)
        assert path.stat().st_mtime_ns // SECOND >= before // SECOND + 1


def test_the_last_nanoseconds_of_a_second_do_not_count_as_the_next(tree: Path) -> None:
    """L19: in floating point, .99999995 is the next second already, and a rewrite would keep the old one."""
    path = tree / DEEP
    for nanoseconds in (999_999_999, 999_999_950, 999_999_700):
        before = 1_800_000_000 * SECOND + 1
        os.utime(path, ns=(before, before))
        temporary = temporary_beside(path)
        temporary.write_bytes(b"alpha")
        late = before - 1 + nanoseconds
        os.utime(temporary, ns=(late, late))
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            _move_on(descriptor, path)
        finally:
            os.close(descriptor)
        assert temporary.stat().st_mtime_ns >= 1_800_000_001 * SECOND


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync_carries_a_rewrite_of_the_same_size_in_the_same_second(tree: Path, tmp_path: Path) -> None:
    """L19, promise 5: rsync compares size and whole seconds; a plain rewrite within the second would be lost."""
    mirror, path = tmp_path / "mirror", tree / DEEP

    def sync() -> bytes:
        subprocess.run(["rsync", "-a", "--delete", f"{tree}/", f"{mirror}/"], check=True, timeout=60)
        return (mirror / DEEP).read_bytes()

    assert sync() == b"beta\n"
    stamp = path.stat().st_mtime_ns
    path.write_bytes(b"alpha")
    os.utime(path, ns=(stamp, stamp))
    assert sync() == b"beta\n", "what rsync does with a writer that does not keep L19"
    os.utime(path, ns=(stamp, stamp))
    write_atomic(path, b"gamma")
    assert sync() == b"gamma"
    write_atomic(path, b"delta")
    assert sync() == b"delta"


def test_removing_is_done_when_it_is_gone(tree: Path) -> None:
    """L17: idempotent."""
    remove(tree / DEEP)
    remove(tree / DEEP)
    assert not (tree / DEEP).exists()


def test_a_prepared_file_is_published_under_its_name(tree: Path) -> None:
    """L18."""
    temporary = temporary_beside(tree / "x")
    temporary.write_bytes(b"1")
    publish(temporary, tree / "x")
    assert (tree / "x").read_bytes() == b"1"
    assert not temporary.exists()
    with pytest.raises(NotADirectoryError):
        sync_folder(tree / "x")


KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    from repo_server.tree import treeio

    path, new = Path(sys.argv[1]), sys.argv[2].encode()

    def kill_after(steps):
        def trace(frame, event, argument):
            nonlocal steps
            if frame.f_code.co_filename != treeio.__file__:
                return None
            if event == "line":
                steps -= 1
                if steps < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        return trace

    outcomes = []
    for steps in range(10_000):
        path.write_bytes(b"old")
        child = os.fork()
        if child == 0:
            sys.settrace(kill_after(steps))
            treeio.write_atomic(path, new)
            sys.settrace(None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        outcomes.append(path.read_bytes().decode())
        if os.WIFEXITED(status):
            break
    print(json.dumps(outcomes))
"""


def test_a_writer_killed_at_any_step_leaves_the_old_file_or_the_new_one(tree: Path) -> None:
    """L17, L18, promise 1: SIGKILL before every single line of the writer; leftovers are names that readers ignore."""
    child = python(KILLED, str(tree / DEEP), "new")
    outcomes = json.loads(child.communicate(timeout=100)[0])
    assert child.returncode == 0
    assert len(outcomes) > 15
    assert set(outcomes) == {"old", "new"}
    assert outcomes == sorted(outcomes, key=["old", "new"].index), "once new, never old again"
    leftovers = [item.name for item in (tree / DEEP).parent.iterdir() if item.name != Path(DEEP).name]
    assert leftovers
    assert all(is_temporary(name) for name in leftovers)
    write_atomic(tree / DEEP, b"again")
    assert read(tree, DEEP) == b"again"


def traced_calls(tree: Path, log: Path) -> list[str] | None:
    """Return the system calls of one write in their order, ``None`` where processes cannot be traced."""
    code = "import sys, pathlib, repo_server.tree.treeio as it; it.write_atomic(pathlib.Path(sys.argv[1]), b'alpha')"
    calls = "trace=openat,write,fsync,fdatasync,rename,renameat,renameat2"
    command = ["strace", "-f", "-y", "-e", calls, "-o", str(log), sys.executable, "-c", code, str(tree / DEEP)]
    done = subprocess.run(command, capture_output=True, timeout=100, check=False)
    if b"ptrace" in done.stderr or not log.exists():
        return None
    assert done.returncode == 0, done.stderr
    return [line.split(maxsplit=1)[1] for line in log.read_text().splitlines() if str(tree) in line]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_it_returns(tree: Path, tmp_path: Path) -> None:
    """L18, promise 1: write, fsync, rename, fsync of the folder; as the kernel saw it."""
    calls = traced_calls(tree, tmp_path / "strace.log")
    if calls is None:
        pytest.skip("processes may not be traced here")
    # A line also says openat where it only opens a file of the tree to look at it.
    order = [(call.partition("(")[0], ".tmp-" in call.partition("=")[0]) for call in calls]
    assert order == [
        ("openat", True),
        ("write", True),
        ("fsync", True),
        ("rename", True),
        ("openat", False),
        ("fsync", False),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_owner_of_its_folder(tree: Path) -> None:
    """L17, L18: the server is another user, and must be able to lock and to write on."""
    os.chown(tree, 1234, 2345)
    with tree_lock(tree):
        write_atomic(tree / "repo.toml", b"")
    assert [(tree / name).stat().st_uid for name in (LOCK_NAME, "repo.toml")] == [1234, 1234]
    assert (tree / LOCK_NAME).stat().st_gid == 2345


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_nothing_away_that_was_there_before(tree: Path, tmp_path: Path) -> None:
    """The folder's owner could have put a hard link there."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"")
    os.chown(tree, 1234, 2345)
    (tree / LOCK_NAME).hardlink_to(secret)
    with tree_lock(tree):
        assert secret.stat().st_uid == 0


def test_what_killed_writers_left_is_removed_and_nothing_else(tree: Path) -> None:
    """L18."""
    leftover = temporary_beside(tree / "x")
    leftover.write_bytes(b"half")
    others = [tree / name for name in (".tmp-mine", ".tmp-0123456789ABCDEF", "tmp-0123456789abcdef")]
    for path in others:
        path.write_bytes(b"")
    temporary_beside(tree / "x").mkdir()
    linked = temporary_beside(tree / "x")
    linked.symlink_to(others[0])
    remove_leftovers([tree, tree / "not there"])
    assert not leftover.exists()
    assert linked.is_symlink()
    assert all(path.exists() for path in others)
