"""Logs of components stay bounded while their programs write, and the programs notice nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.platform.logcap import KEPT_BYTES, MAX_BYTES, SOON, LogWatch, trim_log, trim_logs
from agent.platform.spoken import TAIL_BYTES, tail

MB = 1 << 20


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


def test_a_writer_goes_on_at_the_new_end_and_what_it_said_last_is_kept(log: Path) -> None:
    writer = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(writer, b"x" * MAX_BYTES + b"the end")
    assert trim_logs(log.parent) == {"service.log": MAX_BYTES + 7}
    os.write(writer, b"and on")
    os.close(writer)
    assert log.read_bytes() == b"and on"
    kept = log.with_name("service.log.1")
    assert kept.stat().st_size == KEPT_BYTES
    assert kept.read_bytes().endswith(b"xthe end")
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_short_log_stays_as_it_is(log: Path) -> None:
    log.write_bytes(b"x" * MAX_BYTES)
    trim_logs(log.parent)
    assert log.stat().st_size == MAX_BYTES
    assert [path.name for path in log.parent.iterdir()] == ["service.log"]


def test_a_log_is_emptied_also_where_its_end_cannot_be_kept(log: Path) -> None:
    """On a full disk, say."""
    log.with_name("service.log.1").mkdir()
    log.write_bytes(b"x" * (MAX_BYTES + 1))
    trim_log(log)
    assert log.stat().st_size == 0


def test_a_link_in_place_of_a_log_is_not_followed(log: Path) -> None:
    target = log.with_name("precious")
    target.write_bytes(b"x" * (MAX_BYTES + 1))
    log.symlink_to(target)
    log.with_name("ui.log").mkdir()
    assert trim_logs(log.parent) == {}
    assert target.stat().st_size == MAX_BYTES + 1


def test_what_is_said_after_a_cut_is_found(log: Path) -> None:
    """``start`` was where the log ended at the launch; it is shorter now."""
    log.write_text("after")
    assert tail(log, start=MAX_BYTES) == "after"
    log.write_text("before" * TAIL_BYTES)
    assert tail(log, start=6) == ("before" * TAIL_BYTES)[-TAIL_BYTES:]


def test_a_quiet_log_wakes_nobody_up_and_a_growing_one_before_it_is_too_long(log: Path) -> None:
    watch = LogWatch(log.parent)
    assert watch.trim(0.0) is None, "there is none"
    log.write_bytes(b"x" * MB)
    assert watch.trim(10.0) == 10.0 + SOON, "a new one"
    assert watch.trim(10.1) == 10.0 + SOON, "too soon to tell"
    assert watch.trim(15.0) is None, "it does not grow"
    assert watch.trim(3000.0) is None
    with log.open("ab") as file:
        file.write(b"x" * MB)
    assert watch.trim(3010.0) == 3010.0 + 60.0, "6 MiB are left, at 1 MiB in 10 s"
    log.write_bytes(b"x" * (20 * MB))
    assert watch.trim(3020.0) == 3020.0 + SOON, "a flood"
    assert log.stat().st_size == 0
    assert watch.trim(3030.0) is None, "it is over"
