"""Single files of a tree: never through a link, never half, never under a held lock (L6, L17 to L19, L25, L29)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from repo_server.core.names import is_temporary
from repo_server.tree.treeio import (
    LOCK_NAME,
    Busy,
    FileIdentity,
    NotRegular,
    TooLarge,
    _move_on,  # the clock cannot be set to a nanosecond, so one test starts at the step after it
    open_beneath,
    publish,
    read_small,
    remove,
    remove_leftovers,
    sync_folder,
    temporary_beside,
    tree_lock,
    write_atomic,
)

DEEP = "2026/q4/november/service-linux-amd64-1.2.3.channel"
SECOND = 10**9


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "downloads"
    (root / DEEP).parent.mkdir(parents=True)
    (root / DEEP).write_bytes(b"beta\n")
    return root


def python(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a real Python on a few lines of code."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def read(root: Path, relative: str, limit: int = 64) -> bytes:
    return read_small(root, relative, limit)[0]


# Reading


def test_a_regular_file_is_read_at_any_depth(tree: Path) -> None:
    (tree / "repo.toml").write_bytes(b"")
    assert read(tree, DEEP) == b"beta\n"
    assert read(tree, "repo.toml") == b""


def test_the_tree_itself_may_be_reached_through_a_link(tree: Path) -> None:
    (tree.parent / "link").symlink_to(tree)
    assert read(tree.parent / "link", DEEP) == b"beta\n"


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_at_any_depth_is_not_followed(tree: Path, depth: int, absolute: bool) -> None:
    """L29: the file, and every folder on the way; also where the link stays inside the tree."""
    path = tree.joinpath(*DEEP.split("/")[: depth + 1])
    moved = path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved if absolute else moved.name)
    assert (tree / DEEP).read_bytes() == b"beta\n", "the link itself is good"
    with pytest.raises(NotRegular):
        read(tree, DEEP)


def test_a_link_to_nowhere_is_a_link(tree: Path) -> None:
    """L29."""
    (tree / "x").symlink_to("nowhere")
    with pytest.raises(NotRegular):
        read(tree, "x")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        ".",
        "..",
        "../downloads/x",
        "2026/../x",
        "2026/./q4",
        "2026//q4",
        "/etc/passwd",
        "2026/",
        "x\0y",
        "\0",
        "a/\ud800",
        "\udfff",
    ],
)
def test_a_path_that_is_not_inside_the_tree_is_refused(tree: Path, path: str) -> None:
    with pytest.raises(NotRegular):
        read(tree, path)


def test_a_name_that_is_not_utf8_can_be_read_and_names_its_own_file_only(tree: Path) -> None:
    """L9: as the file system gives it; whether it is offered is another matter."""
    name = os.fsdecode(b"x\xff")
    (tree / name).write_bytes(b"1")
    assert read(tree, name) == b"1"


@pytest.mark.timeout(20)
def test_a_fifo_never_blocks_a_reader(tree: Path) -> None:
    """L29."""
    os.mkfifo(tree / "fifo")
    with pytest.raises(NotRegular):
        open_beneath(tree, "fifo")


def test_folders_sockets_and_files_used_as_folders_are_not_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L29."""
    monkeypatch.chdir(tree)  # a socket's path has a short limit
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        for path in ("socket", "2026", f"{DEEP}/x"):
            with pytest.raises(NotRegular):
                open_beneath(tree, path)


@pytest.mark.root
def test_a_device_is_not_opened(tree: Path) -> None:
    """L29."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a device")
    try:
        os.mknod(tree / "null", 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this container may not make devices")
    with pytest.raises(NotRegular):
        open_beneath(tree, "null")


def test_a_file_that_is_not_there_is_just_that(tree: Path) -> None:
    for path in ("x", "2026/x", "x/y/z"):
        with pytest.raises(FileNotFoundError):
            open_beneath(tree, path)


def open_descriptors() -> int:
    """Count them where the system tells."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_no_descriptor_is_left_open(tree: Path) -> None:
    (tree / "link").symlink_to("x")
    os.mkfifo(tree / "fifo")
    before = open_descriptors()
    for path in (DEEP, "x", "link", "fifo", "2026", "2026/x/y", "..") * 5:
        try:
            read(tree, path, 3)
        except (NotRegular, FileNotFoundError, TooLarge):
            continue
    assert open_descriptors() == before


@pytest.mark.parametrize("size", [0, 1, 63, 64])
def test_a_file_up_to_the_limit_is_read_whole(tree: Path, size: int) -> None:
    """L6."""
    (tree / "x").write_bytes(b"x" * size)
    assert read(tree, "x") == b"x" * size


def test_a_file_over_the_limit_is_not_read(tree: Path) -> None:
    """L6: a sparse file of a terabyte costs nothing."""
    (tree / "x").write_bytes(b"x" * 65)
    with pytest.raises(TooLarge, match="has 65 bytes; at most 64 are read"):
        read(tree, "x")
    with (tree / "x").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(TooLarge):
        read(tree, "x")


def test_an_identity_changes_with_the_bytes_the_time_and_the_file(tree: Path) -> None:
    """L25."""
    seen = {read_small(tree, DEEP, 64)[1]}
    assert seen == {FileIdentity.of((tree / DEEP).stat())}
    for change in (
        lambda: (tree / DEEP).write_bytes(b"stable\n"),
        lambda: os.utime(tree / DEEP, ns=(1, 1)),
        lambda: write_atomic(tree / DEEP, b"alpha"),
        lambda: os.utime(tree / DEEP, ns=(2, 2)),
    ):
        change()
        seen.add(read_small(tree, DEEP, 64)[1])
    assert len(seen) == 5


# Writing


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


# The lock


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
