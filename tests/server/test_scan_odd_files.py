"""Everything that may lie in a tree and is no release: named, never opened, never in the way (L1 to L6, L9, L29)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.scanning import Scans, codes, full, offered, soon
from support.trees import Tree

from repo_server.tree.scan import Scanner

NAME = "service-linux-amd64-1.2.3.tar.gz"
GOOD = "ui-linux-amd64-1.0.0.tar.gz"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make a tree with one good release that nothing may hide."""
    tree = Tree(tmp_path / "tree")
    tree.add(GOOD)
    return tree


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def make_link(path: Path) -> None:
    path.symlink_to(path.with_name(GOOD))


ODD: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "FIFO": os.mkfifo,
    "link": make_link,
    "broken link": lambda path: path.symlink_to("nowhere"),
    "endless link": lambda path: path.symlink_to(path.name),
    "socket": make_socket,
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.parametrize("suffix", ["", ".sha256", ".sig", ".channel", ".meta", ".rollout", ".blocked"])
def test_what_is_not_a_regular_file_is_never_opened_whatever_its_name(
    tree: Tree, make: Callable[[Path], object], suffix: str
) -> None:
    """L29: a FIFO that was opened would hang the test."""
    tree.add(NAME)
    path = tree.root / f"{NAME}{suffix}"
    path.unlink(missing_ok=True)
    scans = Scans(tree.root)
    scans.full()
    make(path)
    for result in (scans.update(path), scans.full(), full(tree.root)):
        assert list(offered(result)) == [GOOD]
        assert set(codes(result).values()) == {"not_a_regular_file"}
        assert codes(result)[NAME] == "not_a_regular_file"


def test_a_link_in_place_of_a_folder_is_not_entered(tree: Tree, tmp_path: Path) -> None:
    """L29: nothing outside the tree is read."""
    outside = Tree(tmp_path / "outside", tree.release_key)
    outside.add(NAME)
    (tree.root / "linked").symlink_to(outside.root)
    result = full(tree.root)
    assert list(offered(result)) == [GOOD]
    assert codes(result) == {"linked": "not_a_regular_file"}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("README.md", "unrecognised_name"),
        ("service-linux-amd64.tar.gz", "unrecognised_name"),
        ("sensor-linux-amd64-1.2.3.tar.gz", "unknown_component"),
        ("Service-linux-amd64-1.2.3.tar.gz", "unknown_component"),
        ("service-plan9-amd64-1.2.3.tar.gz", "unknown_platform"),
        ("service-linux-amd64-1.2.tar.gz", "invalid_version"),
        ("service-linux-amd64-1.2.3+build.tar.gz", "invalid_version"),
        ("service-linux-amd64-1.2.3 .tar.gz", "invalid_version"),
        ("x" * 201, "unsafe_name"),
    ],
)
def test_a_name_that_means_nothing_is_a_problem(tree: Tree, name: str, code: str) -> None:
    """L4, L5, L9."""
    scans = Scans(tree.root)
    scans.full()
    (tree.root / name).write_bytes(b"x")
    for result in (scans.update(name), scans.full(), full(tree.root)):
        assert codes(result) == {name: code}
        assert list(offered(result)) == [GOOD]
    (tree.root / name).unlink()
    assert codes(scans.update(name)) == {}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"service-linux-amd64-1.2.3\xff.tar.gz", r"service-linux-amd64-1.2.3\xff.tar.gz"),
        (b"service-linux-amd64-1.2.3.tar.gz.sig\xe9", r"service-linux-amd64-1.2.3.tar.gz.sig\xe9"),
        ("service-linux-amd64-\u202e3.2.1.tar.gz".encode(), r"service-linux-amd64-\u202e3.2.1.tar.gz"),
        (b"service-linux-amd64-1.2.3.tar.gz\n", r"service-linux-amd64-1.2.3.tar.gz\n"),
        (b"service-linux-amd64-1.2.3\x1b[31m.tar.gz", r"service-linux-amd64-1.2.3\x1b[31m.tar.gz"),
    ],
)
@pytest.mark.parametrize("is_folder", [False, True])
def test_an_unsafe_name_is_shown_escaped_and_hides_nothing(
    tree: Tree, name: bytes, shown: str, *, is_folder: bool
) -> None:
    """L9."""
    path = os.path.join(os.fsencode(tree.root), name)  # noqa: PTH118 -- pathlib has no paths of bytes
    scans = Scans(tree.root)
    scans.full()
    if is_folder:
        os.mkdir(path)  # noqa: PTH102 -- as above
        with open(os.path.join(path, b"inside"), "wb"):  # noqa: PTH118, PTH123 -- as above
            pass
    else:
        with open(path, "wb"):  # noqa: PTH123 -- as above
            pass
    for result in (scans.update(os.fsdecode(name)), scans.full(), full(tree.root)):
        assert codes(result) == {shown: "unsafe_name"}
        assert list(offered(result)) == [GOOD]


@pytest.mark.parametrize(
    "name",
    [f".{NAME}", f".{NAME}.Xa12bc", f"{NAME}~", f"{NAME}.tmp", f"{NAME}.filepart", f"{NAME}.part", f"#{NAME}#",
     "Thumbs.db", "desktop.ini", f"{NAME}.crdownload", f".{NAME}.swp", f"{NAME}.sha256.tmp", f".{NAME}.sig"],
)  # fmt: skip
@pytest.mark.parametrize("is_folder", [False, True])
def test_temporary_names_are_ignored_files_and_folders_alike(tree: Tree, name: str, *, is_folder: bool) -> None:
    """L3."""
    if is_folder:
        tree.add(NAME, folder=name)
    else:
        (tree.root / name).write_bytes(b"x")
    result = full(tree.root)
    assert result.problems == ()
    assert list(offered(result)) == [GOOD]


def test_reserved_folders_are_not_searched(tree: Tree) -> None:
    """L2: but only at the root."""
    for folder in ("metadata", "policy", "sets", "commands"):
        tree.add(NAME, folder=folder)
    assert list(offered(full(tree.root))) == [GOOD]
    tree.add(NAME, folder="a/policy")
    assert f"a/policy/{NAME}" in offered(full(tree.root))


def test_files_are_found_three_folders_deep_and_named_below(tree: Tree) -> None:
    """L1."""
    tree.add(NAME, folder="a/b/c")
    deep = "probe-linux-amd64-1.0.0.tar.gz"
    tree.add(deep, folder="a/b/c/d")
    tree.add(deep, folder="a/b/c/d/e/f")
    result = full(tree.root)
    assert set(offered(result)) == {GOOD, f"a/b/c/{NAME}"}
    expected = {f"a/b/c/d/{deep}{suffix}": "too_deep" for suffix in ("", ".sha256", ".sig")}
    assert codes(result) == expected | {"a/b/c/d/e": "too_deep"}


def test_more_files_than_the_limit_are_a_problem_and_what_is_known_stays(tree: Tree) -> None:
    """L6: and files that were not looked at are not taken for removed (L26)."""
    scans = Scans(tree.root)
    scans.full()
    (tree.root / "repo.toml").write_text("[limits]\nmax_files = 8\n")
    for number in range(20):
        (tree.root / f"0junk{number}").write_bytes(b"")
    for result in (scans.full(), scans.full()):
        assert "too_many_files" in codes(result)[""]
        assert list(offered(result)) == [GOOD]
    (tree.root / "repo.toml").write_text("")
    assert "" not in codes(scans.full())


def test_a_folder_that_cannot_be_read_is_a_problem_and_its_releases_stay(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L26: an error of the disk is not a removal. The error is injected where the folder is opened."""
    tree.add(NAME, folder="a")
    tree.add("probe-linux-amd64-1.0.0.tar.gz", folder="a")
    scans = Scans(tree.root)
    scans.full()
    real = os.scandir

    def scandir(path: int) -> object:
        if os.path.samestat(os.fstat(path), (tree.root / "a").stat()):
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        for result in (scans.full(), scans.full()):
            assert codes(result) == {"a": "unreadable_folder"}
            assert len(offered(result)) == 3
        assert list(offered(full(tree.root))) == [GOOD]
    assert codes(scans.full()) == {}
    for path in (tree.root / "a").iterdir():
        path.unlink()
    (tree.root / ".accept-removal").touch()
    assert list(offered(scans.full())) == [GOOD]


def test_a_file_that_cannot_be_read_is_a_problem(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is injected where the file is read."""
    tree.add(NAME)
    real = os.readv

    def readv(descriptor: int, buffers: list[bytearray]) -> int:
        if os.path.samestat(os.fstat(descriptor), (tree.root / NAME).stat()):
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, buffers)

    scans = Scans(tree.root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "readv", readv)
        result = scans.full()
        assert codes(result) == {NAME: "unreadable_file"}
        assert list(offered(result)) == [GOOD]
    assert NAME in offered(scans.update(now=soon() + timedelta(seconds=6)))


def test_a_sidecar_that_cannot_be_read_is_a_problem_and_tried_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is injected where the sidecar is read: an absent ``.channel`` would mean stable, this one does not."""
    tree.add(NAME, channel="alpha")
    real = os.read

    def read(descriptor: int, count: int) -> bytes:
        if os.path.samestat(os.fstat(descriptor), (tree.root / f"{NAME}.channel").stat()):
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, count)

    scans = Scans(tree.root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        result = scans.full()
        assert codes(result) == {NAME: "unreadable_file"}
        assert list(offered(result)) == [GOOD]
    assert offered(scans.update(now=soon() + timedelta(seconds=6)))[NAME].channel == "alpha"


def test_a_sidecar_of_which_the_disk_says_nothing_is_not_taken_for_absent(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is injected where the folder is listed: an absent ``.channel`` would mean stable (L12)."""
    tree.add(NAME, channel="alpha")
    real = os.scandir

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.real = entry.name, entry

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            if self.name.endswith(".channel"):
                raise OSError(errno.EIO, "Input/output error")
            return self.real.stat(follow_symlinks=follow_symlinks)

    @contextlib.contextmanager
    def scandir(path: int) -> Iterator[list[Entry]]:
        with real(path) as entries:
            yield [Entry(entry) for entry in entries]

    scans = Scans(tree.root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        result = scans.full()
        assert list(offered(result)) == [GOOD]
        assert "Input/output error" in result.problems[0].message
    assert offered(scans.full())[NAME].channel == "alpha"


def test_a_sidecar_that_becomes_a_link_after_it_was_listed_is_not_followed(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L29: the exchange happens between the listing and the opening."""
    tree.add(NAME, channel="alpha")
    (tmp_path / "outside").write_text("stable\n")
    real = os.open

    def swapping(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == f"{NAME}.channel":
            sidecar = tree.root / path
            sidecar.unlink(missing_ok=True)
            sidecar.symlink_to(tmp_path / "outside")
        return real(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", swapping)
        assert list(offered(full(tree.root))) == [GOOD]


def test_a_folder_that_becomes_a_link_after_it_was_listed_is_not_entered(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L29: as above."""
    outside = Tree(tmp_path / "outside", tree.release_key)
    outside.add(NAME)
    (tree.root / "a").mkdir()
    real = os.open

    def swapping(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "a" and not (tree.root / "a").is_symlink():
            (tree.root / "a").rmdir()
            (tree.root / "a").symlink_to(outside.root)
        return real(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", swapping)
        result = full(tree.root)
    assert list(offered(result)) == [GOOD]
    assert result.problems == ()


def test_a_file_that_changes_while_it_is_hashed_is_arriving(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """L24, L25: what was read is right, and no longer what lies there."""
    path = tree.add(NAME, b"right")
    real = os.readv

    def changing(descriptor: int, buffers: list[bytearray]) -> int:
        count = real(descriptor, buffers)
        if count == 0 and os.path.samestat(os.fstat(descriptor), path.stat()):
            with path.open("r+b") as file:
                file.write(b"wrong")
        return count

    scans = Scans(tree.root)
    with monkeypatch.context() as patch:
        patch.setattr(os, "readv", changing)
        result = scans.full()
    assert codes(result) == {NAME: "arriving"}
    assert list(offered(result)) == [GOOD]
    assert codes(scans.full()) == {NAME: "digest_mismatch"}


def test_a_scanner_that_was_only_made_has_touched_nothing(tmp_path: Path) -> None:
    Scanner(tmp_path / "tree", tmp_path / "state").close()
    assert list(tmp_path.iterdir()) == []
