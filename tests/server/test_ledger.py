"""The digest ledger: append-only, durable, and honest about damage (L7)."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repo_server.tree import ledger
from repo_server.tree.treeio import NotRegular

A, B = "a" * 64, "b" * 64
ONE, TWO = "service-linux-amd64-1.2.3", "ui-windows-arm64-2.0.0-rc.1"


def test_what_is_recorded_is_read_back_in_its_documented_form(tmp_path: Path) -> None:
    """L7: one line ``<sha256>  <release id>``."""
    ledger.record(tmp_path, None, {ONE: A, TWO: B})
    assert (tmp_path / ".published").read_text() == f"{A}  {ONE}\n{B}  {TWO}\n"
    assert ledger.read(tmp_path, None) == {ONE: A, TWO: B}


def test_recording_is_idempotent_and_never_changes_a_line(tmp_path: Path) -> None:
    """L7: the first digest is the release's for ever."""
    ledger.record(tmp_path, None, {ONE: A})
    before = (tmp_path / ".published").read_bytes()
    ledger.record(tmp_path, None, {ONE: A})
    ledger.record(tmp_path, None, {ONE: B})
    assert (tmp_path / ".published").read_bytes() == before


def test_a_tree_without_a_ledger_has_an_empty_one(tmp_path: Path) -> None:
    assert ledger.read(tmp_path, tmp_path / "state") == {}


@pytest.mark.parametrize("cut", range(1, len(f"{B}  {TWO}") + 1))
def test_a_torn_last_line_counts_for_nothing_and_the_next_record_heals_it(tmp_path: Path, cut: int) -> None:
    """Promise 1: killed while writing, the ledger has the line or it does not."""
    path = tmp_path / ".published"
    path.write_text(f"{A}  {ONE}\n" + f"{B}  {TWO}"[:cut])
    assert ledger.load(tmp_path, None) == ledger.Ledger({ONE: A})
    ledger.record(tmp_path, None, {TWO: B})
    assert path.read_text() == f"{A}  {ONE}\n{B}  {TWO}\n"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"rubbish",
        b"\xff\xfe",
        f"{A} {ONE}".encode(),
        f"{A[:-1]}  {ONE}".encode(),
        f"{A}  ../../etc".encode(),
        b"\0" * 20,
    ],
)
def test_other_garbage_is_reported_and_hides_nothing(tmp_path: Path, line: bytes) -> None:
    (tmp_path / ".published").write_bytes(f"{A}  {ONE}\n".encode() + line + f"\n{B}  {TWO}\n".encode())
    found = ledger.load(tmp_path, None)
    assert found.digests == {ONE: A, TWO: B}
    assert [(item.file, item.line) for item in found.damage] == [(".published", 2)]


def test_of_two_lines_that_contradict_each_other_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / ".published").write_text(f"{A}  {ONE}\n{B}  {ONE}\n")
    found = ledger.load(tmp_path, None)
    assert found.digests == {ONE: A}
    assert "was published as" in found.damage[0].message


def test_an_entry_that_could_not_be_read_back_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot stand in the ledger"):
        ledger.record(tmp_path, None, {"one line\nand another": A})
    assert not (tmp_path / ".published").exists()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("elsewhere"), lambda path: path.mkdir(), os.mkfifo])
def test_something_else_under_the_ledgers_name_is_refused_and_never_followed(tmp_path: Path, make: object) -> None:
    """L29."""
    make(tmp_path / ".published")  # type: ignore[operator]
    with pytest.raises(NotRegular):
        ledger.read(tmp_path, None)
    with pytest.raises((NotRegular, OSError)):
        ledger.record(tmp_path, tmp_path / "state", {ONE: A})
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_in_a_read_only_tree_the_line_goes_to_the_state_folder() -> None:
    """L7: written by a process that may not write into the tree; the tree's own lines come first."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        tree, state = home / "tree", home / "state"
        tree.mkdir()
        state.mkdir()
        ledger.record(tree, state, {ONE: A})
        os.chown(state, 65534, 65534)
        home.chmod(0o755)
        assert as_nobody(lambda: ledger.record(tree, state, {TWO: B})) == 0
        assert (state / "published").read_text() == f"{B}  {TWO}\n"
        assert ledger.read(tree, state) == {ONE: A, TWO: B}
        assert ledger.read(tree, None) == {ONE: A}
        assert as_nobody(lambda: ledger.record(tree, None, {TWO: B})) != 0


def as_nobody(work: Callable[[], object]) -> int:
    """Do something in a process without rights; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    ids = [f"service-linux-amd64-1.{number}.0" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda identifier: ledger.record(tmp_path, None, {identifier: A}), ids))
    assert ledger.load(tmp_path, None) == ledger.Ledger(dict.fromkeys(ids, A)) or set(
        ledger.read(tmp_path, None)
    ) == set(ids)
    assert ledger.load(tmp_path, None).damage == ()


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is injected into ``os.write``: it writes ten bytes, then there is no room."""
    ledger.record(tmp_path, None, {ONE: A})
    before = (tmp_path / ".published").read_bytes()
    real, calls = os.write, []

    def write(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, bytes(data)[:10])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        ledger.record(tmp_path, None, {TWO: B})
    assert (tmp_path / ".published").read_bytes() == before
