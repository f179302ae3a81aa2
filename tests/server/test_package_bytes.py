"""Downloads under way: only verified bytes, flat memory, and no check that waits for them (NFR-PER-002)."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from support.server import RunningServer, running, wait_until
from support.serving import CONTENT, SERVICE
from support.trees import Tree

PATH = f"/v1/packages/{SERVICE}"


def test_a_file_that_was_replaced_is_never_served(tree: Tree, tmp_path: Path) -> None:
    """L25, L7: from the moment of the exchange, whether the scanner has seen it yet or not, nobody gets other bytes."""
    evil = b"EVIL" * (len(CONTENT) // 4)
    with running(tree.root, tmp_path / "state") as server:
        assert server.get(PATH).data == CONTENT
        target = tree.root / SERVICE
        before = target.stat()
        replacement = tree.root / ".new"
        replacement.write_bytes(evil)
        os.utime(replacement, ns=(before.st_atime_ns, before.st_mtime_ns))
        replacement.rename(target)
        for _ in range(50):
            response = server.get(PATH)
            assert response.status in {404, 409}, "the bytes were exchanged under the same size and time"
        wait_until(lambda: server.offered() == {}, "the exchanged file is no release any more", server.log_path)
        wait_until(lambda: server.get("/v1/problems").json()["problems"], "the exchange is shown", server.log_path)


def test_a_file_that_is_written_to_while_it_is_sent_breaks_the_download(tmp_path: Path) -> None:
    """L25: the client must not take a mixture for a whole file."""
    big = os.urandom(1024) * (32 * 1024)
    tree = Tree(tmp_path / "tree")
    tree.add(SERVICE, big)
    with running(tree.root, tmp_path / "state") as server, socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.settimeout(60)
        slow.sendall(f"GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        received = len(slow.recv(4096))
        with (tree.root / SERVICE).open("r+b") as file:
            file.seek(-1024, os.SEEK_END)
            file.write(b"E" * 1024)
        while part := slow.recv(1 << 20):
            received += len(part)
        assert received < len(big)


def test_a_file_that_is_taken_away_while_it_is_sent_is_sent_to_its_end(tmp_path: Path) -> None:
    """Its bytes are still the verified ones; a recall or a clean-up breaks no download off."""
    big = os.urandom(1024) * (32 * 1024)
    tree = Tree(tmp_path / "tree")
    tree.add(SERVICE, big)
    with running(tree.root, tmp_path / "state") as server, socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.settimeout(60)
        slow.sendall(f"GET {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        received = slow.recv(4096)
        (tree.root / SERVICE).unlink()
        received += b"".join(iter(lambda: slow.recv(1 << 20), b""))
    assert received.partition(b"\r\n\r\n")[2] == big


def test_a_writer_who_sets_the_time_back_breaks_the_download(tmp_path: Path) -> None:
    """L25: the change of the inode shows it."""
    big = os.urandom(1024) * (32 * 1024)
    tree = Tree(tmp_path / "tree")
    path = tree.add(SERVICE, big)
    with running(tree.root, tmp_path / "state") as server, socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.settimeout(60)
        slow.sendall(f"GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        received = len(slow.recv(4096))
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(-1024, os.SEEK_END)
            file.write(b"E" * 1024)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        while part := slow.recv(1 << 20):
            received += len(part)
        assert received < len(big)


def held_open(server: RunningServer, folder: Path) -> list[str]:
    """Return the files below a folder that the server has open."""
    names = []
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(str(descriptor.readlink()))
    return [name for name in names if name.startswith(f"{folder}/{SERVICE}")]


def test_a_client_that_leaves_in_the_middle_leaves_nothing_open(tmp_path: Path) -> None:
    big = b"\0" * (64 * 1024 * 1024)
    tree = Tree(tmp_path / "tree")
    tree.add(SERVICE, big)
    with running(tree.root, tmp_path / "state") as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as leaver:
                leaver.sendall(f"GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                leaver.recv(100)
                assert held_open(server, tree.root)
        # The release's alone: others, as those of the database, come and go by themselves.
        wait_until(lambda: not held_open(server, tree.root), "the file is closed", server.log_path)
        assert "Traceback" not in server.log


def test_memory_stays_flat_whatever_the_size_and_the_number(tmp_path: Path) -> None:
    """NFR-PER-002: stalled downloads of 64 MiB must not sit in memory."""
    tree = Tree(tmp_path / "tree")
    tree.add(SERVICE, b"\0" * (64 * 1024 * 1024))
    with running(tree.root, tmp_path / "state") as server:
        server.get(PATH, {"range": "bytes=0-0"})
        before = resident(server)
        with stalled(server, 8):
            whole = server.http.request("GET", f"{server.url}{PATH}", preload_content=False)
            assert sum(len(part) for part in whole.stream(1 << 20)) == 64 * 1024 * 1024
            assert resident(server) - before < 32 * 1024 * 1024


def test_two_hundred_slow_downloads_slow_no_check(tmp_path: Path) -> None:
    """Nor do they fill the memory: each has little of its file in it."""
    tree = Tree(tmp_path / "tree")
    tree.add(SERVICE, b"\0" * (64 * 1024 * 1024))
    with running(tree.root, tmp_path / "state") as server:
        alone, before = median_check(server), resident(server)
        with stalled(server, 200) as readers:
            for _ in range(5):
                for reader in readers:
                    reader.recv(1024)
                assert median_check(server) < max(0.1, 20 * alone)
            assert resident(server) - before < 200 * 400 * 1024
            assert server.get(PATH, {"range": "bytes=0-9"}).data == bytes(10), "a file is read beside them"


@contextlib.contextmanager
def stalled(server: RunningServer, count: int) -> Iterator[list[socket.socket]]:
    """Begin so many downloads, and take next to nothing of them."""
    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(count):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(30)
            reader.connect(("127.0.0.1", server.port))
            reader.sendall(f"GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            assert reader.recv(100).startswith(b"HTTP/1.1 200")
            readers.append(reader)
        yield readers


def median_check(server: RunningServer) -> float:
    """Return how many seconds a check takes."""

    def timed() -> float:
        started = time.perf_counter()
        server.check()
        return time.perf_counter() - started

    return statistics.median(timed() for _ in range(21))


def resident(server: RunningServer) -> int:
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
