"""The end of the server: by a signal, with downloads under way (NFR-REL-004)."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import accepts, running, wait_until
from support.serving import SERVICE, lives, postmaster
from support.trees import Tree


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_postgresql_with_it(tree: Tree, tmp_path: Path, how: signal.Signals) -> None:
    """What was asked a moment before the signal is still written; a restart finds it."""
    device_id = str(uuid.uuid4())
    with running(tree.root, tmp_path / "state", database=True) as server:
        pid = postmaster(server.state)
        server.check(device_id=device_id)
        assert server.stop(how) == 0
        assert not lives(pid)
        assert not (server.state / "postgres" / "postmaster.pid").exists()
        assert "Traceback" not in server.log
        assert "RuntimeWarning" not in server.log
    with running(tree.root, tmp_path / "state", database=True) as server:
        assert server.get(f"/v1/devices/{device_id}").status == 200


BIG = 64 * 1024 * 1024
"""Bytes; more than fits into the buffers between server and client."""


@contextlib.contextmanager
def slow_download(port: int) -> Iterator[tuple[socket.socket, int]]:
    """Begin a download, take only the beginning of it, and say how many bytes are still to come."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"GET /v1/packages/{SERVICE} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(64)
        yield connection, BIG - len(head.partition(b"\r\n\r\n")[2])


@pytest.fixture
def big(tmp_path: Path) -> Tree:
    """Make a tree with a release that takes a while to download."""
    tree = Tree(tmp_path / "tree")
    tree.add(SERVICE, b"\0" * BIG)
    return tree


def test_running_downloads_finish_after_the_signal(big: Tree, tmp_path: Path) -> None:
    with running(big.root, tmp_path / "state") as server, slow_download(server.port) as (connection, size):
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(server.port), "no new connection is taken", server.log_path)
        # Long enough for a server that does not wait to have cut it; for one that does it makes no difference.
        time.sleep(1)
        assert server.process.poll() is None
        received = 0
        while received < size and (part := connection.recv(1 << 20)):
            received += len(part)
        assert received == size, "the download was cut"
        assert server.process.wait(30) == 0


def test_a_download_that_does_not_finish_is_cut_at_the_limit(big: Tree, tmp_path: Path) -> None:
    options = ("--shutdown-seconds", "1")
    with running(big.root, tmp_path / "state", *options) as server, slow_download(server.port):
        assert server.stop() == 0
        assert "its time is up" in server.log
        assert "Traceback" not in server.log


def test_a_second_signal_does_not_wait_for_downloads(big: Tree, tmp_path: Path) -> None:
    options = ("--shutdown-seconds", "600")
    with running(big.root, tmp_path / "state", *options) as server, slow_download(server.port):
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(server.port), "no new connection is taken", server.log_path)
        assert server.stop() == 0
