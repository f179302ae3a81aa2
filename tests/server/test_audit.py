"""The audit: a line for every request, whatever becomes of the file (NFR-AUD-001)."""

from __future__ import annotations

import json
import os
import signal
import socket
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.figures import figure
from support.server import RunningServer, check_body, running, wait_until
from support.serving import SERVICE
from support.trees import Tree

from repo_server.core.wire import SECRET_HEADER
from repo_server.telemetry.audit import MAX_WAITING_BYTES, Audit, Line
from repo_server.telemetry.auditfile import RotatedFile

SECRET = "audited-secret-0123456789"
REQUIRED = {"time", "address", "method", "path", "auth_id", "auth", "status", "duration_ms"}


def secrets_file(folder: Path) -> tuple[str, str]:
    path = folder / "secrets"
    path.write_text(f"fleet:{SECRET}\n")
    path.chmod(0o600)
    return "--secrets", str(path)


def lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line.keys() >= REQUIRED for line in found)
    return found


def written(server: RunningServer, count: int) -> list[dict[str, Any]]:
    path = server.state / "audit.log"
    wait_until(lambda: path.exists() and len(lines(path)) >= count, f"{count} lines are written", server.log_path)
    return lines(path)


def test_every_request_leaves_a_line_with_every_required_field(tree: Tree, tmp_path: Path) -> None:
    """Time, address, endpoint, whose secret, whether it was right, what was asked, status, offered, error, duration."""
    device_id = str(uuid.UUID(int=7))
    with running(tree.root, tmp_path / "state", *secrets_file(tmp_path), ready=False) as server:
        known = {SECRET_HEADER: SECRET}
        server.check(headers=known, device_id=device_id, site_id="lab")
        server.get(f"/v1/packages/{SERVICE}", known)
        server.post("/v1/check", check_body(os="plan9"), known)
        server.post("/v1/check", check_body(), {SECRET_HEADER: "wrong-secret"})
        server.get("/nothing?" + "x" * 2000)
        server.request("PUT", "/v1/check", headers=known)
        check, package, invalid, refused, nothing, method = written(server, 6)
        log = server.log
    assert datetime.fromisoformat(check["time"]).tzinfo is not None
    assert (check["address"], check["method"], check["path"]) == ("127.0.0.1", "POST", "/v1/check")
    assert (check["auth_id"], check["auth"], check["status"]) == ("secret:fleet", "success", 200)
    assert check["duration_ms"] > 0
    assert check["request"] == {
        "device_id": device_id, "os": "linux", "arch": "amd64", "channel": "stable", "updater_version": "1.0.0",
        "components": [{"name": "service", "version": "0.0.1"}],
    }  # fmt: skip
    assert check["result"] == [{"name": "service", "version": "1.2.3", "action": "update"}]
    assert (package["path"], package["result"]["version"]) == (f"/v1/packages/{SERVICE}", "1.2.3")
    assert (invalid["status"], invalid["error_code"], invalid["request"]["os"]) == (422, "invalid_os", "plan9")
    assert (refused["status"], refused["auth"], refused["auth_id"]) == (401, "failure", None)
    assert refused["error"]
    assert (nothing["status"], nothing["path"]) == (404, "/nothing")
    assert (method["status"], method["error_code"]) == (405, "method_not_allowed")
    text = (tmp_path / "state" / "audit.log").read_text()
    assert SECRET not in text + log
    assert "wrong-secret" not in text + log


def test_a_connection_without_a_request_leaves_a_line(tree: Tree, tmp_path: Path) -> None:
    """Whoever looks for a port that answers, or wears the server down, is in the audit too."""
    with running(tree.root, tmp_path / "state", "--public-metrics", ready=False) as server:
        for data in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
                connection.sendall(data)
                while connection.recv(65536):
                    pass
        malformed, too_large = written(server, 2)
        assert figure(server, "requests_total", endpoint="none", status="431") == 1
    assert (malformed["status"], malformed["error_code"]) == (400, "malformed_request")
    assert (too_large["status"], too_large["error_code"]) == (431, "head_too_large")
    assert {line["address"] for line in (malformed, too_large)} == {"127.0.0.1"}
    assert {(line["method"], line["path"], line["auth"]) for line in (malformed, too_large)} == {("-", "-", "none")}


def test_the_lines_of_the_last_requests_are_written_before_the_end(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", ready=False) as server:
        for _ in range(50):
            server.check()
        assert server.stop() == 0
    assert len(lines(tmp_path / "state" / "audit.log")) == 50
    assert (tmp_path / "state" / "audit.log").stat().st_mode & 0o007 == 0


def test_lines_go_to_standard_output_if_wanted(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", "--audit-stdout", ready=False) as server:
        server.check()
        assert server.process.stdout is not None
        assert json.loads(server.process.stdout.readline())["path"] == "/v1/check"


def test_a_file_that_was_moved_away_is_made_anew(tree: Tree, tmp_path: Path) -> None:
    """Logrotate: with SIGHUP, and also when nobody sends one."""
    path = tmp_path / "elsewhere.log"
    with running(tree.root, tmp_path / "state", "--audit-log", str(path), ready=False) as server:
        for number, tell in enumerate((True, False)):
            server.check()
            wait_until(lambda: path.exists() and lines(path), "a line is written", server.log_path)
            path.rename(tmp_path / f"old-{number}.log")
            if tell:
                server.process.send_signal(signal.SIGHUP)
                wait_until(path.exists, "the file is there again", server.log_path)
        server.check()
        wait_until(lambda: path.exists() and lines(path), "a line is written", server.log_path)
    assert [len(lines(tmp_path / f"old-{number}.log")) for number in range(2)] == [1, 1]
    assert len(lines(path)) == 1


def test_a_full_disk_is_counted_and_said_and_nobody_waits_for_it(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", "--audit-log", "/dev/full", "--public-metrics") as server:
        assert server.offered() == {"service": "1.2.3"}
        wait_until(
            lambda: "audit_not_written" in [item["code"] for item in server.ready()["conditions"]],
            "it is said",
            server.log_path,
        )
        assert "No space left" in server.log
        assert figure(server, "audit_lines_lost_total") > 0


def test_a_disk_that_does_not_answer_holds_up_neither_requests_nor_the_end(tree: Tree, tmp_path: Path) -> None:
    """A FIFO that nobody reads: opening it waits for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with running(tree.root, tmp_path / "state", "--audit-log", str(fifo)) as server:
        assert server.offered() == {"service": "1.2.3"}
        assert server.stop() == 0
        assert "not written" in server.log


def line(number: int) -> bytes:
    return b'{"line":%d}\n' % (1000 + number)


def numbers(path: Path) -> list[int]:
    return [json.loads(text)["line"] - 1000 for text in path.read_text().splitlines()] if path.exists() else []


def test_files_are_rotated_by_size_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = RotatedFile(path, max_bytes=10 * len(line(0)), keep=2)
    for number in range(45):
        file.write(line(number))
    file.close()
    assert numbers(path) == list(range(40, 45))
    assert numbers(tmp_path / "audit.log.1") == list(range(30, 40))
    assert numbers(tmp_path / "audit.log.2") == list(range(20, 30))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["audit.log", "audit.log.1", "audit.log.2"]
    again = RotatedFile(path, max_bytes=10 * len(line(0)), keep=2)
    again.write(line(45))
    again.close()
    assert numbers(path) == list(range(40, 46))


def test_a_link_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("")
    (tmp_path / "audit.log").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic"):
        RotatedFile(tmp_path / "audit.log", 1000, 1).write(line(1))


class Stuck:
    """A disk that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def write(self, lines: bytes) -> None:
        self.taken.append(bytes(lines))

    def reopen(self) -> None: ...

    def close(self) -> None: ...


def test_lines_that_a_slow_disk_has_no_room_for_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The thread is not started: nothing is taken off the queue."""
    audit = Audit((Stuck(),))
    big = Line(datetime.fromisoformat("2026-01-01T00:00:00Z"), "", "GET", "x" * 100_000, None, "none", 200, 1.0)
    total = 2 * MAX_WAITING_BYTES // 100_000
    for _ in range(total):
        audit.add(big)
    assert audit.lost > total // 3
    assert "too slow" in caplog.text
    assert "too slow" in str(audit.error), "it is a condition"
    sink = audit.sinks[0]
    audit.start()
    audit.close()
    assert isinstance(sink, Stuck)
    assert sum(part.count(b"\n") for part in sink.taken) + audit.lost == total
    assert audit.written + audit.lost == total
    assert audit.error is None
