"""The spool on a real disk: bounded, in order, and readable after whatever happened to its files (design §7)."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from repo_server.store.spool import Spool, SpoolError, SpoolFull


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool", 1_000_000, segment_bytes=200)
    opened.open()
    yield opened
    opened.close()


def again(spool: Spool) -> Spool:
    """Open the folder as the next process does."""
    spool.close()
    opened = Spool(spool.folder, spool.max_bytes, spool.segment_bytes)
    opened.open()
    return opened


def drained(spool: Spool, at_once: int = 3) -> list[bytes]:
    """Take everything out."""
    found = []
    while items := spool.peek(at_once):
        found += items
        spool.advance(len(items))
    return found


def items(count: int, start: int = 0) -> list[bytes]:
    return [f"entry {n:04} \xc5SPL".encode("latin-1") * 3 for n in range(start, start + count)]


def segments(spool: Spool) -> list[Path]:
    return sorted(spool.folder.glob("*.spool"))


def test_what_went_in_comes_out_once_and_in_order(spool: Spool) -> None:
    for item in items(20):
        spool.append([item])
    assert len(segments(spool)) > 2
    assert spool.entries == 20
    assert drained(spool) == items(20)
    assert (spool.entries, spool.size, segments(spool)) == (0, 0, [])


def test_taking_out_goes_on_while_more_comes_in(spool: Spool) -> None:
    found: list[bytes] = []
    for n in range(30):
        spool.append(items(2, 2 * n))
        taken = spool.peek(1)
        spool.advance(1)
        found += taken
    assert found + drained(spool) == items(60)


def test_what_was_not_forgotten_is_there_after_a_restart(spool: Spool) -> None:
    spool.append(items(5))
    spool.peek(5)
    assert drained(again(spool)) == items(5)


def test_only_what_is_forgotten_goes(spool: Spool) -> None:
    spool.append(items(3))
    assert spool.peek(2) == items(2)
    spool.advance(2)
    assert spool.peek(9) == items(1, 2)


@pytest.mark.parametrize(
    "tail", [b"\0" * 4096, b"\xc5SPL", b"\xc5SPL\xff\xff\0\0\0\0\0\0cut off", b"noise", b"\xc5SPL" + b"\xff" * 64]
)
def test_a_torn_end_is_passed_over_and_said(spool: Spool, tail: bytes, caplog: pytest.LogCaptureFixture) -> None:
    spool.append(items(3))
    with segments(spool)[0].open("ab") as file:
        file.write(tail)
    opened = again(spool)
    assert opened.entries == 3
    opened.append(items(1, 3))
    assert drained(opened) == items(4)
    assert opened.damaged == 0
    assert "no entry" in caplog.text


def test_every_cut_leaves_the_entries_before_it(spool: Spool) -> None:
    """A power cut may leave any length of the last write."""
    spool.append(items(3))
    path = segments(spool)[0]
    whole = path.read_bytes()
    size = len(whole) // 3
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert again(spool).entries == length // size


def test_damage_within_costs_only_what_it_hit_and_the_file_is_kept(spool: Spool) -> None:
    spool.append(items(3))
    path = segments(spool)[0]
    data = bytearray(path.read_bytes())
    size = len(data) // 3
    data[size : 2 * size] = b"\0" * size
    path.write_bytes(data)
    opened = again(spool)
    assert drained(opened) == [items(3)[0], items(3)[2]]
    assert opened.damaged == 1
    assert [item.suffix for item in opened.folder.iterdir()] == [".damaged"]


def test_a_segment_that_is_gone_or_emptied_holds_up_nothing(spool: Spool) -> None:
    for item in items(12):
        spool.append([item])
    first, second, *_ = segments(spool)
    first.unlink()
    second.write_bytes(b"")
    found = drained(spool)
    assert found
    assert found == items(12)[-len(found) :]
    assert spool.entries == 0


def test_it_holds_no_more_than_it_may_and_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 500, segment_bytes=200)
    spool.open()
    held = 8
    for item in items(held):
        spool.append([item])
    with pytest.raises(SpoolFull, match="may hold 500"):
        spool.append(items(1))
    assert sum(path.stat().st_size for path in segments(spool)) <= 500
    assert drained(spool) == items(held)
    spool.append(items(1))
    spool.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_disk_that_is_full_takes_nothing_and_loses_nothing(spool: Spool) -> None:
    """A limit on the size of files stands for the disk: the write fails halfway, with some of it on the disk."""
    spool.append(items(2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (spool.size + 20, before[1]))
        with pytest.raises(SpoolError, match="cannot be written"):
            spool.append(items(1, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    spool.append(items(1, 2))
    assert drained(again(spool)) == items(3)


WRITER = """
import sys
from pathlib import Path
from repo_server.store.spool import Spool
spool = Spool(Path(sys.argv[1]), 10**9, segment_bytes=5000)
spool.open()
for number in range(10**6):
    spool.append([f"{number}".encode() * 20])
    print(number, flush=True)
"""


def test_killed_at_any_moment_it_has_everything_that_it_said_it_has(tmp_path: Path) -> None:
    """SIGKILL, a few times, after different numbers of entries."""
    for lines in (1, 7, 40, 133):
        folder = tmp_path / str(lines)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process:
            said = [int(process.stdout.readline()) for _ in range(lines)][-1]
            os.kill(process.pid, signal.SIGKILL)
            said = max([said, *(int(line) for line in process.stdout if line.endswith("\n"))])
        spool = Spool(folder, 10**9)
        spool.open()
        found = drained(spool, 1000)
        assert found[: said + 1] == [f"{n}".encode() * 20 for n in range(said + 1)]
        assert len(found) <= said + 2
