"""``updater.log``: JSON lines, rotated, private (FR-LOG-001, FR-LOG-002, NFR-SEC-007)."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.codes import Code
from agent.logs import Log

NOW = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)


def log_at(path: Path, max_bytes: int = 100_000, max_files: int = 3) -> Log:
    return Log(path, lambda: NOW, max_bytes=max_bytes, max_files=max_files)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_is_one_json_line_with_everything_that_is_known(tmp_path: Path) -> None:
    """FR-LOG-001."""
    log_at(tmp_path / "log").error(
        "did not\nanswer",
        code=Code.HEALTH_FAILED,
        component="service",
        from_version="1.0.0",
        to_version="1.1.0",
        attempt_id="7",
        port=8080,
        folder=tmp_path,
    )
    assert lines(tmp_path / "log") == [
        {
            "timestamp": "2026-11-21T17:00:00.000Z",
            "severity": "error",
            "code": 82,
            "code_name": "HEALTH_FAILED",
            "message": "did not\nanswer",
            "component": "service",
            "from_version": "1.0.0",
            "to_version": "1.1.0",
            "attempt_id": "7",
            "port": 8080,
            "folder": str(tmp_path),
        }
    ]


def test_it_is_rotated_by_size_and_count_and_private(tmp_path: Path) -> None:
    """FR-LOG-002, NFR-SEC-007."""
    before = os.umask(0)
    try:
        log = log_at(tmp_path / "log", max_bytes=1000, max_files=3)
        for number in range(100):
            log.info("event", number=number)
    finally:
        os.umask(before)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1000 for path in files)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    numbers = [line["number"] for path in reversed(files) for line in lines(path)]
    assert numbers == list(range(numbers[0], 100))


def test_one_file_only_is_kept_when_so_configured(tmp_path: Path) -> None:
    log = log_at(tmp_path / "log", max_bytes=500, max_files=1)
    for number in range(50):
        log.info("event", number=number)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_half_a_line_that_a_power_cut_left_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"half')
    log_at(tmp_path / "log").info("next")
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["message"] == "next"


def test_a_huge_text_is_cut(tmp_path: Path) -> None:
    log_at(tmp_path / "log").info("x" * 1_000_000, output=["y" * 1_000_000])
    assert (tmp_path / "log").stat().st_size < 50_000


def test_a_log_that_cannot_be_written_goes_to_stderr_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_at(tmp_path / "absent" / "log").info("important")
    (tmp_path / "target").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    log_at(tmp_path / "link").info("not through a link")
    assert (tmp_path / "target").read_text() == ""
    errors = capsys.readouterr().err
    assert "important" in errors
    assert "not through a link" in errors


def test_what_is_no_file_is_no_log_and_left_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A FIFO that nobody reads would stop the agent once it is full; ``/dev/null`` must not become private."""
    os.mkfifo(fifo := tmp_path / "log", 0o644)
    fifo.chmod(0o644)
    log_at(fifo).info("hello")
    assert "it is not a regular file" in (said := capfd.readouterr().err)
    assert "hello" in said
    assert stat.S_IMODE(fifo.stat().st_mode) == 0o644


def test_several_processes_write_and_rotate_one_log(tmp_path: Path) -> None:
    """The daemon and a ``checknow``: every line stays whole."""
    program = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path; from agent.logs import Log\n"
        "log = Log(Path(sys.argv[1]), lambda: datetime.now(UTC), max_bytes=1_500, max_files=400)\n"
        "for number in range(500): log.info('event', number=number)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, tmp_path / "log"]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    events = [line for path in tmp_path.iterdir() for line in lines(path)]
    assert all(event["message"] == "event" for event in events)
    assert len(events) == 1500
