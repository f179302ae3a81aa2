"""What the service manager is told, over a real socket of its kind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import wait_until

from repo_server.heart import HOPELESS_SECONDS, Heart
from repo_server.servicemanager import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[ServiceManager, socket.socket]]:
    """Listen where a service tells its manager, and give the manager as the service sees it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
        end.bind(str(tmp_path / "notify"))
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}
        yield ServiceManager.of(environment, 7), end


def told(end: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(end.recv(4096).decode())
        except BlockingIOError:
            return found


def test_the_service_manager_is_told_when_the_server_starts_serves_and_stops(
    tmp_path: Path, manager: tuple[ServiceManager, socket.socket]
) -> None:
    service, end = manager
    heart = Heart(service, tmp_path, lambda: 0.0)
    heart.beat()
    assert told(end) == ["EXTEND_TIMEOUT_USEC=60000000", "WATCHDOG=1"]
    heart.begin_serving()
    heart.beat()
    heart.end_serving()
    assert told(end) == ["READY=1", "WATCHDOG=1", "STOPPING=1"]
    assert heart.pause == 10


def test_a_scanner_that_hangs_by_itself_is_ended_by_the_watchdog_and_one_that_waits_for_the_disk_is_not(
    tmp_path: Path, manager: tuple[ServiceManager, socket.socket]
) -> None:
    """Agents are served while a tree hangs; a restart would take the last catalogue from them."""
    service, end = manager
    stalled = HOPELESS_SECONDS + 1
    unreadable = Heart(service, tmp_path / "nothing", lambda: stalled, serving=True)
    for _ in range(20):
        unreadable.beat()
        assert told(end) == ["WATCHDOG=1"]
    assert "its disk may hang" in str(unreadable.symptom())
    readable = Heart(service, tmp_path, lambda: stalled, serving=True)

    def silent() -> bool:
        told(end)
        readable.beat()
        return told(end) == []

    wait_until(silent, "nothing is said any more")
    stalled = 0.0
    readable.beat()
    assert told(end) == ["WATCHDOG=1"]
    assert readable.symptom() is None


def test_variables_that_are_meant_for_another_process_count_for_nothing_and_are_not_passed_on() -> None:
    """sd_listen_fds(3): a shell may have inherited them."""
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1", "HOME": "/"}
    assert ServiceManager.of(environment, os.getpid()) == ServiceManager()
    assert environment == {"HOME": "/"}
