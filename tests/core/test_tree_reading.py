"""Reading single files of a tree: never through a link, never without an end (L9, L29)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from core.files import DEEP, read

from repo_server.tree.treeio import (
    FileIdentity,
    NotRegular,
    TooLarge,
    open_beneath,
    read_small,
    write_atomic,
)


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
