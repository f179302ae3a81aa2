"""What happens to the disk, the clock and the process under a running server: agents are served on, and it is said."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.load import load
from support.server import RunningServer, running, wait_until
from support.serving import SERVICE
from support.trees import Tree

from repo_server.tree.scan import Scanner
from repo_server.tree.treeio import write_atomic

needs_mounts = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounting file systems needs root on Linux"
)
THREE_MORE = tuple(f"ui-linux-amd64-1.0.{number}.tar.gz" for number in range(3))


@contextlib.contextmanager
def mounted(kind: str, options: str, folder: Path) -> Iterator[None]:
    """Mount a file system on a folder, and take it away at the end."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", kind, "-o", options, kind, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)


def problems(server: RunningServer) -> set[str]:
    return {item["code"] for item in server.get("/v1/problems").json()["problems"]}


def fill(folder: Path) -> Tree:
    tree = Tree(folder)
    for name in (SERVICE, *THREE_MORE):
        tree.add(name, channel="stable")
    return tree


def conditions(server: RunningServer) -> set[str]:
    response = server.get("/readyz")
    assert response.status == 200, "agents are served"
    return {item["code"] for item in response.json()["conditions"]}


def test_a_tree_that_is_gone_or_another_is_said_by_name_wherever_one_looks(tmp_path: Path) -> None:
    """An unmounted disk, a folder exchanged by mistake: agents are served the last good catalogue (L26).

    Each worker says what the main process found.
    """
    folder, away = tmp_path / "tree", tmp_path / "away"
    fill(folder)
    with running(folder, tmp_path / "state", "--workers", "2") as server:
        assert conditions(server) == set()
        folder.rename(away)
        server.post("/v1/rescan", b"{}")
        wait_until(lambda: conditions(server) >= {"tree_unreadable"}, "it is gone", server.log_path)
        folder.mkdir()
        server.post("/v1/rescan", b"{}")
        wait_until(lambda: conditions(server) >= {"mass_removal", "no_root"}, "it is empty", server.log_path)
        assert server.offered() == {"service": "1.2.3"}
        assert 'repo_server_condition{code="mass_removal"' in server.get("/metrics").data.decode()
        assert "4 of 4 releases are gone at once" in str(server.get("/v1/problems").json()["server"])
        assert server.log.count('"condition":"mass_removal"') == 1
        folder.rmdir()
        away.rename(folder)
        server.post("/v1/rescan", b"{}")
        # It takes some seconds without an error until the watching is trusted again.
        wait_until(lambda: conditions(server) <= {"tree_not_watched"}, "it is over", server.log_path)
        assert "mass_removal is over" in server.log


def test_a_server_that_starts_before_its_disk_is_mounted_says_so_and_takes_it_up(tmp_path: Path) -> None:
    """Ready all the same: whoever drops the first release into an empty folder waits for that."""
    folder, disk = tmp_path / "tree", tmp_path / "disk"
    fill(disk)
    folder.mkdir()
    with running(folder, tmp_path / "state") as server:
        assert "no_root" in conditions(server)
        folder.rmdir()
        disk.rename(folder)
        server.post("/v1/rescan", b"{}")
        wait_until(lambda: "no_root" not in conditions(server), "it is there", server.log_path)
        assert server.offered() == {"service": "1.2.3"}


@needs_mounts
@pytest.mark.root
def test_an_unmounted_tree_stays_offered_and_is_said_until_it_is_back(tmp_path: Path) -> None:
    """L26: a disk that went is not a decision to recall everything."""
    folder, disk = tmp_path / "tree", tmp_path / "disk"
    fill(disk)
    folder.mkdir()
    subprocess.run(["mount", "--bind", disk, folder], check=True)
    try:
        with running(folder, tmp_path / "state") as server, load(server.url) as asking:
            subprocess.run(["umount", "--lazy", folder], check=True)
            wait_until(lambda: "mass_removal" in problems(server), "it is said", server.log_path)
            wait_until(lambda: "mass_removal" in conditions(server), "the server says it as well", server.log_path)
            asking.wait_for(200)
            assert server.offered() == {"service": "1.2.3"}
            assert server.get(f"/v1/packages/{SERVICE}").status == 404
            subprocess.run(["mount", "--bind", disk, folder], check=True)
            server.post("/v1/rescan", b"{}")
            wait_until(lambda: not problems(server), "it is over", server.log_path)
            assert server.get(f"/v1/packages/{SERVICE}").status == 200
            assert asking.errors == []
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)


@needs_mounts
@pytest.mark.root
def test_a_read_only_tree_is_served_and_its_releases_are_remembered_in_the_state_folder(tmp_path: Path) -> None:
    """L7: a mirror, or a disk that the kernel made read-only."""
    folder = tmp_path / "tree"
    with mounted("tmpfs", "size=16m", folder):
        tree = fill(folder)
        with running(folder, tmp_path / "state") as server:
            tree.add("probe-linux-amd64-1.0.0.tar.gz")
            wait_until(lambda: "probe" in server.offered(components=[{"name": "probe", "version": ""}]), "it is there")
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            assert server.get(f"/v1/packages/{SERVICE}").status == 200
            assert server.post("/v1/rescan", b"{}").status == 202
            assert server.offered() == {"service": "1.2.3"}
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        (folder / ".published").unlink()
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with running(folder, tmp_path / "state") as server:
            assert server.offered() == {"service": "1.2.3"}
            assert SERVICE.removesuffix(".tar.gz") in (server.state / "published").read_text()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (Debian package strace)")
def test_a_slow_disk_under_the_tree_does_not_slow_checks(tmp_path: Path) -> None:
    """Every file of the tree takes a tenth of a second to open; workers do not look at the tree."""
    tree = fill(tmp_path / "tree")
    slow = [
        "strace",
        "--quiet=all",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=openat",
        "-e",
        "inject=openat:delay_enter=100ms",
    ]
    with running(tree.root, tmp_path / "state", "--workers", "2") as server, load(server.url) as asking:
        with subprocess.Popen([*slow, "-p", str(server.process.pid)]) as strace:
            status = Path(f"/proc/{server.process.pid}/status")
            wait_until(lambda: f"TracerPid:\t{strace.pid}" in status.read_text(), "strace is there")
            tree.add("ui-linux-amd64-2.0.0.tar.gz")
            slowest = 0.0
            deadline = time.monotonic() + 60
            while "2.0.0" not in server.offered(components=[{"name": "ui", "version": "0.0.1"}]).values():
                assert time.monotonic() < deadline
                started = time.monotonic()
                server.check()
                slowest = max(slowest, time.monotonic() - started)
            strace.terminate()
        assert asking.errors == []
        assert slowest < 2.0


@pytest.mark.slow
def test_twenty_thousand_events_at_once_hide_no_promotion_and_fail_no_check(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree")
    newer = tree.add("service-linux-amd64-1.3.0.tar.gz", channel="beta")
    with running(tree.root, tmp_path / "state") as server, load(server.url, clients=2) as asking:
        for number in range(20_000):
            (tree.root / f"holiday-{number}.jpg").touch()
            if number == 10_000:
                write_atomic(newer.with_name(f"{newer.name}.channel"), b"stable\n")
        wait_until(lambda: server.offered() == {"service": "1.3.0"}, "the promotion is served", server.log_path)
        wait_until(lambda: server.ready()["scan"]["problems"] == 20_000, "every file has its problem", server.log_path)
        for number in range(20_000):
            (tree.root / f"holiday-{number}.jpg").unlink()
        wait_until(lambda: server.ready()["scan"]["problems"] == 0, "they are over", server.log_path)
        assert asking.errors == []
        assert '"level":"critical"' not in server.log


def test_a_process_that_runs_out_of_descriptors_goes_on_when_there_are_some(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", database=True) as server:
        used = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 5, hard))
        assert server.offered() == {"service": "1.2.3"}
        with contextlib.ExitStack() as crowd:
            for _ in range(50):
                crowd.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            assert server.offered() == {"service": "1.2.3"}, "who is connected is served"
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        wait_until(lambda: server.get(f"/v1/packages/{SERVICE}").status == 200, "files are sent again", server.log_path)
        assert server.offered(headers={"connection": "close"}) == {"service": "1.2.3"}
        assert server.process.poll() is None


@pytest.mark.parametrize("jump", [timedelta(days=-3650), timedelta(days=3650)], ids=["back", "forward"])
def test_a_clock_that_jumps_hides_no_release(tree: Tree, tmp_path: Path, jump: timedelta) -> None:
    """The release of a moment ago, one from before the jump, and one from after it."""
    scanner = Scanner(tree.root, tmp_path / "state")
    assert len(scanner.full(datetime.now(UTC)).catalogue) == 1
    tree.add(THREE_MORE[0])
    assert len(scanner.update((THREE_MORE[0],), datetime.now(UTC) + jump).catalogue) == 2
    tree.add(THREE_MORE[1])
    assert len(scanner.full(datetime.now(UTC)).catalogue) == 3
    scanner.close()
