"""Update now by a Unix socket: its owner can ask one thing, and nobody is held up (FR-UPD-001B, FR-UPD-009)."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.endpoints import wait_until
from support.triggers import ask, calling, heard

from agent.platform.triggersocket import TriggerSocket, caller
from agent.trigger import ACCEPTED, MAX_REQUEST, MOST_PEERS, NOT_UNDERSTOOD, PEER_SECONDS, REQUEST, RUNNING, Gate


class Served:
    """A listening socket, served by a thread as the daemon serves it, on a clock that a test can put forward."""

    def __init__(self, path: Path, allowed: set[int]) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self.ahead = 0.0
        self.socket = TriggerSocket(path, allowed, self.answer)
        self._stopping = False

    def answer(self, request: bytes) -> bytes:
        self.requests.append(request)
        return ACCEPTED

    def serve(self) -> None:
        while not self._stopping:
            poll = select.poll()
            for descriptor in self.socket.descriptors():
                poll.register(descriptor, select.POLLIN)
            poll.poll(20)
            self.socket.serve(time.monotonic() + self.ahead)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.socket.open()
        thread = threading.Thread(target=self.serve)
        thread.start()
        try:
            yield
        finally:
            self._stopping = True
            thread.join()
            self.socket.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / ("long" * 40) / "update.sock", {os.geteuid()})
    made.path.parent.mkdir()
    with made.running():
        yield made


def test_one_request_in_thirty_seconds_is_let_through_and_none_during_a_cycle() -> None:
    gate = Gate()
    assert gate.answer(REQUEST, 100.0, busy=True) == RUNNING
    assert gate.answer(REQUEST, 100.0, busy=False) == ACCEPTED
    assert gate.answer(REQUEST, 113.0, busy=False) == b"too soon, in 17 s\n"
    assert gate.answer(REQUEST, 129.9, busy=False).startswith(b"too soon")
    assert gate.answer(REQUEST, 130.0, busy=False) == ACCEPTED
    assert gate.answer(REQUEST, 5.0, busy=False) == ACCEPTED, "the clock was set back"


@given(st.binary().filter(lambda request: request.strip() != b"check"))
def test_nothing_else_can_be_asked_and_asking_it_uses_nothing_up(request: bytes) -> None:
    gate = Gate()
    assert gate.answer(request, 1.0, busy=False) == NOT_UNDERSTOOD
    assert gate.answer(REQUEST, 1.0, busy=False) == ACCEPTED


def test_the_socket_is_private_answers_and_hangs_up(served: Served) -> None:
    assert served.path.stat().st_mode & 0o777 == 0o600
    assert ask(served.path) == "accepted\n"
    assert served.requests == [REQUEST]


def test_a_socket_that_was_removed_is_made_anew_and_one_in_its_place_is_anothers(tmp_path: Path) -> None:
    served = Served(tmp_path / "update.sock", {os.geteuid()})
    with served.running():
        assert served.socket.is_open
        served.path.unlink()
        assert not served.socket.is_open
        served.socket.open()
        assert served.socket.is_open
        assert ask(served.path) == "accepted\n"
        served.path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(served.path))
            other.listen()
            with pytest.raises(OSError, match="another resident agent"):
                served.socket.open()
            assert not served.socket.is_open
    assert served.path.is_socket(), "it is not ours to take away"


def test_a_request_may_come_in_pieces_or_without_a_line_end(served: Served) -> None:
    with calling(served.path) as connection:
        for byte in REQUEST:
            connection.sendall(bytes([byte]))
        assert heard(connection) == "accepted\n"
    with calling(served.path) as connection:
        connection.sendall(b"check")
        connection.shutdown(socket.SHUT_WR)
        assert heard(connection) == "accepted\n"
    assert served.requests == [REQUEST, b"check"]


def test_too_much_is_not_read(served: Served) -> None:
    with calling(served.path) as connection:
        connection.sendall(b"x" * (MAX_REQUEST * 1000))
        heard(connection)
    assert len(served.requests[0]) <= 2 * MAX_REQUEST


def test_a_caller_who_says_nothing_is_cut_off_and_holds_nobody_up_for_longer(served: Served) -> None:
    with calling(served.path) as silent, calling(served.path) as other:
        other.sendall(REQUEST)
        assert heard(other) == "accepted\n"
        served.ahead = PEER_SECONDS + 1
        assert heard(silent) == ""
    assert served.requests == [REQUEST]


def test_of_silent_callers_a_few_are_listened_to_and_the_others_wait(served: Served) -> None:
    with ExitStack() as silent:
        for _ in range(MOST_PEERS):
            silent.enter_context(calling(served.path))
        wait_until(lambda: len(served.socket.descriptors()) == MOST_PEERS, "all are listened to")
        with calling(served.path) as waiting:
            waiting.sendall(REQUEST)
            # The listener itself is not among them: the kernel keeps whoever else calls.
            assert len(served.socket.descriptors()) == MOST_PEERS
            assert served.requests == []
            served.ahead = PEER_SECONDS + 1
            assert heard(waiting) == "accepted\n"


def test_other_users_are_refused_whatever_the_files_mode_says(tmp_path: Path) -> None:
    """The kernel says who calls: this test is not the user that is allowed."""
    served = Served(tmp_path / "update.sock", {os.geteuid() + 1})
    with served.running():
        assert ask(served.path) == ""
    assert served.requests == []


def test_the_kernel_names_the_caller() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert caller(one) == os.geteuid()


@pytest.mark.parametrize("left", ["a socket", "a file"])
def test_what_a_killed_agent_left_is_replaced(tmp_path: Path, left: str) -> None:
    path = tmp_path / "update.sock"
    if left == "a socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    else:
        path.write_text("x")
    served = Served(path, {os.geteuid()})
    with served.running():
        assert ask(path) == "accepted\n"
    assert not path.exists()


def test_a_second_agent_does_not_take_the_socket_of_the_first(served: Served) -> None:
    second = TriggerSocket(served.path, {os.geteuid()}, lambda _: b"")
    with pytest.raises(OSError, match="another resident agent") as caught:
        second.open()
    assert caught.value.errno == errno.EADDRINUSE
    assert ask(served.path) == "accepted\n"
