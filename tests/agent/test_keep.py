"""Preserved files go along with modes, owners, times and links; what is written meanwhile is not lost (L42)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent import keep
from agent.keep import carry, preserved


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    return folder


@pytest.fixture
def new(tmp_path: Path) -> Path:
    folder = tmp_path / "new"
    folder.mkdir()
    return folder


def put(folder: Path, path: str, content: str = "x") -> Path:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    return target


def test_one_star_stays_in_a_folder_and_two_cross_folders(old: Path) -> None:
    for path in ("etc/a.conf", "etc/sub/b.conf", "data/x", "data/deep/er/y", "other"):
        put(old, path)
    found = set(preserved(old, ["etc/*.conf", "data/**"]))
    assert found == {"etc/a.conf", "data", "data/x", "data/deep", "data/deep/er", "data/deep/er/y"}


def test_the_old_file_wins_over_the_packages_own(old: Path, new: Path) -> None:
    put(old, "etc/a.conf", "mine").chmod(0o600)
    put(new, "etc/a.conf", "default")
    carry(old, new, ["etc/*"])
    assert (new / "etc/a.conf").read_text() == "mine"
    assert (new / "etc/a.conf").stat().st_mode & 0o777 == 0o600


def test_modes_owners_and_times_are_kept(old: Path, new: Path) -> None:
    file = put(old, "data/db")
    file.chmod(0o640)
    (old / "data").chmod(0o750)
    os.utime(file, ns=(10**18, 10**18 + 7))
    if os.geteuid() == 0:
        os.chown(file, 1234, 5678)
        os.chown(old / "data", 1234, 5678)
    carry(old, new, ["data/**"])
    for path in ("data", "data/db"):
        one, other = (old / path).stat(), (new / path).stat()
        assert (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
    assert (new / "data/db").stat().st_mtime_ns == 10**18 + 7


def test_links_are_carried_as_links_and_never_followed(old: Path, new: Path, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/secret")
    (old / "data").mkdir()
    (old / "data" / "out").symlink_to(outside.parent)
    (old / "data" / "gone").symlink_to("nowhere")
    carry(old, new, ["data/**"])
    assert (new / "data" / "out").readlink() == outside.parent
    assert (new / "data" / "gone").is_symlink()


def test_sockets_and_fifos_are_left_to_the_program(old: Path, new: Path) -> None:
    (old / "data").mkdir()
    os.mkfifo(old / "data" / "pipe")
    carry(old, new, ["data/**"])
    assert list((new / "data").iterdir()) == []


def test_a_second_look_brings_what_changed_and_drops_what_went(old: Path, new: Path) -> None:
    for name in ("same", "changed", "removed"):
        put(old, f"data/{name}", "before")
    put(new, "data/packaged", "of the package")
    first = carry(old, new, ["data/**"])
    put(old, "data/changed", "after!")
    put(old, "data/added")
    (old / "data/removed").unlink()
    carry(old, new, ["data/**"], first)
    found = {path.name: path.read_text() for path in (new / "data").iterdir()}
    assert found == {"same": "before", "changed": "after!", "added": "x", "packaged": "of the package"}


def test_what_was_just_written_is_copied_again_however_equal_it_looks(old: Path, new: Path) -> None:
    """A second write within one tick of the file system's clock leaves the same times and maybe the same size."""
    put(old, "data/log", "aaaa")
    first = carry(old, new, ["data/**"])
    assert first["data/log"] is None
    put(new, "data/log", "torn")
    carry(old, new, ["data/**"], first)
    assert (new / "data/log").read_text() == "aaaa"


def test_a_file_where_the_package_has_a_folder_is_said(old: Path, new: Path) -> None:
    put(old, "data/x")
    put(new, "data/x/y")
    with pytest.raises(IsADirectoryError):
        carry(old, new, ["data/**"])
    put(old, "etc/sub/z")
    put(new, "etc/sub")
    with pytest.raises(NotADirectoryError):
        carry(old, new, ["etc/**"])


def test_without_globs_nothing_is_looked_at(old: Path, new: Path) -> None:
    put(old, "data/x")
    assert dict(carry(old, new, [])) == {}
    assert list(new.iterdir()) == []


def test_a_file_that_goes_while_sizes_are_taken_does_not_count(tmp_path: Path) -> None:
    """The old program still runs then; an update must not fail because it rotates its logs."""
    for name in ("a", "b"):
        (tmp_path / name).write_text("12345")
    seen = keep.preserved

    def vanishing(folder: Path, globs: Sequence[str]) -> Iterator[str]:
        for path in seen(folder, globs):
            if path == "b":
                (folder / path).unlink()
            yield path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keep, "preserved", vanishing)
        assert keep.size(tmp_path, ("*",)) == 5
