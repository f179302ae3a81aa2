"""What the resident agent is made of on Windows: its service, its waiting, its children, its pipe."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.windows import WindowsSimulator

from agent.codes import Code
from agent.errors import AgentError
from agent.platform import windows_waiting
from agent.platform.triggerpipe import PIPE, TriggerPipe
from agent.platform.windows_service import CHECK_CONTROL, ServiceHost
from agent.platform.windows_waiting import Child, Waiting
from agent.trigger import MAX_REQUEST, PEER_SECONDS

STOPPED, STOP_PENDING, RUNNING = 1, 3, 4


@pytest.fixture
def simulator() -> Iterator[WindowsSimulator]:
    simulator = WindowsSimulator("", {})
    yield simulator
    assert simulator.open_handles == {}


@pytest.fixture
def waiting(simulator: WindowsSimulator) -> Iterator[Waiting]:
    with Waiting(simulator.api()) as waiting:
        yield waiting


@pytest.fixture(autouse=True)
def _flags_of_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Popen`` takes creation flags on Windows only."""
    monkeypatch.setattr(windows_waiting, "_NO_WINDOW", 0)
    monkeypatch.setattr(windows_waiting, "_OWN_GROUP", 0)


def child(text: str) -> Child:
    return Child([sys.executable, "-c", text], dict(os.environ))


def test_it_waits_no_longer_than_it_was_told(waiting: Waiting) -> None:
    began = time.monotonic()
    waiting.wait(None, [], 0.1)
    assert 0.1 <= time.monotonic() - began < 10


@pytest.mark.parametrize("what", ["end", "check"])
def test_another_thread_wakes_it_up(waiting: Waiting, what: str) -> None:
    request = {"end": waiting.request_end, "check": waiting.request_check}[what]
    thread = threading.Timer(0.1, request)
    thread.start()
    waiting.wait(None, [], 60)
    thread.join()
    assert (waiting.ending, waiting.check_now) == (what == "end", what == "check")
    began = time.monotonic()
    waiting.wait(None, [], 0.05)
    assert time.monotonic() - began >= 0.05, "it was told once"


@pytest.mark.parametrize(("key", "ends"), [(0, True), (1, False), (2, True), (6, True)])
def test_a_key_at_the_console_ends_it_and_break_checks(
    simulator: WindowsSimulator, waiting: Waiting, key: int, ends: bool
) -> None:
    assert simulator.console(key) == 1
    assert (waiting.ending, waiting.check_now) == (ends, not ends)


def test_the_end_of_a_child_wakes_it_up(waiting: Waiting) -> None:
    one = child("import time; time.sleep(0.2); raise SystemExit(4)")
    assert one.ended() is None
    waiting.wait(one, [], 60)
    assert one.ended() == 4


def test_a_child_is_asked_to_end_by_the_end_of_its_input(waiting: Waiting) -> None:
    """As ``session.told_to_end`` understands it: SIGTERM's handler runs in the main thread."""
    one = child(
        "import os, time; from agent.platform.session import told_to_end\n"
        "def request(*_): raise SystemExit(7)\n"
        "with told_to_end(request, os.environ):\n"
        "    for _ in range(1200): time.sleep(0.05)"
    )
    waiting.wait(one, [], 0.5)
    assert one.ended() is None
    one.ask_to_end()
    waiting.wait(one, [], 60)
    assert one.ended() == 7


def test_a_child_that_does_not_listen_can_be_ended(waiting: Waiting) -> None:
    one = child("import time; time.sleep(60)")
    one.ask_to_end()
    one.end()
    waiting.wait(one, [], 60)
    assert one.ended() not in {None, 0}


def test_a_service_says_that_it_runs_and_that_it_has_stopped(simulator: WindowsSimulator, waiting: Waiting) -> None:
    simulator.by_windows = True
    assert ServiceHost(simulator.api(), waiting).run(lambda: 0) == 0
    assert [(state, code) for state, _, code, _, _ in simulator.statuses] == [(RUNNING, 0), (STOPPED, 0)]


@pytest.mark.parametrize("control", [1, 5, 0xF])
def test_a_stop_is_honoured_and_its_time_is_announced(
    simulator: WindowsSimulator, waiting: Waiting, control: int
) -> None:
    simulator.by_windows = True

    def work() -> int:
        threading.Timer(0.1, lambda: simulator.control(control, 0, None, None)).start()
        while not waiting.ending:
            waiting.wait(None, [], 60)
        return 0

    assert ServiceHost(simulator.api(), waiting).run(work) == 0
    states = [state for state, _, _, _, _ in simulator.statuses]
    assert states == [RUNNING, STOP_PENDING, STOPPED]
    _, accepted, _, check_point, hint = simulator.statuses[1]
    assert (accepted, check_point) == (0, 1)
    assert hint / 1000 > windows_waiting.END_SECONDS


def test_a_service_can_be_asked_for_a_check_and_knows_no_other_control(
    simulator: WindowsSimulator, waiting: Waiting
) -> None:
    simulator.by_windows = True
    answers = []

    def work() -> int:
        answers.extend(simulator.control(control, 0, None, None) for control in (4, CHECK_CONTROL, 2))
        return 0

    ServiceHost(simulator.api(), waiting).run(work)
    assert answers == [0, 0, 120]
    assert (waiting.check_now, waiting.ending) == (True, False)


def test_a_bad_end_of_a_service_is_reported_so_that_windows_starts_it_again(
    simulator: WindowsSimulator, waiting: Waiting
) -> None:
    simulator.by_windows = True
    assert ServiceHost(simulator.api(), waiting).run(lambda: 3) == 3
    assert simulator.statuses[-1][:3] == (STOPPED, 0, 3)


def test_a_person_cannot_start_it_as_a_service(simulator: WindowsSimulator, waiting: Waiting) -> None:
    with pytest.raises(AgentError, match="commandit-updater run") as caught:
        ServiceHost(simulator.api(), waiting).run(lambda: 0)
    assert caught.value.code is Code.NOT_SUPPORTED


class Pipe:
    """The agent's end of the pipe, with what it was asked."""

    def __init__(self, simulator: WindowsSimulator) -> None:
        self.asked: list[bytes] = []
        self.end = TriggerPipe(Path("run"), self._answer, simulator.api())
        self.end.open()

    def _answer(self, request: bytes) -> bytes:
        self.asked.append(request)
        return b"accepted\n"


@pytest.fixture
def pipe(simulator: WindowsSimulator) -> Iterator[Pipe]:
    pipe = Pipe(simulator)
    yield pipe
    pipe.end.close()
    pipe.end.close()
    assert not pipe.end.is_open


def test_the_pipe_is_for_administrators_of_this_machine(simulator: WindowsSimulator, pipe: Pipe) -> None:
    assert simulator.pipe is not None
    assert simulator.pipe.name == PIPE
    assert simulator.pipe.rights == "D:P(A;;GA;;;SY)(A;;GA;;;BA)"
    assert simulator.pipe.rejects_remote
    assert simulator._memory == {}


def test_a_caller_wakes_the_agent_up_and_gets_its_answer(
    simulator: WindowsSimulator, waiting: Waiting, pipe: Pipe
) -> None:
    assert pipe.end.serve(0.0) is None
    simulator.call_pipe()
    waiting.wait(None, pipe.end.descriptors(), 60)
    assert pipe.end.serve(1.0) == 1.0 + PEER_SECONDS
    simulator.say_to_pipe(b"che")
    pipe.end.serve(1.5)
    assert pipe.asked == []
    simulator.say_to_pipe(b"ck\n")
    waiting.wait(None, pipe.end.descriptors(), 60)
    pipe.end.serve(2.0)
    assert pipe.asked == [b"check\n"]
    assert simulator.pipe is not None
    assert (simulator.pipe.heard, simulator.pipe.connected) == (b"accepted\n", True), "it may still be read"
    simulator.hang_up_pipe()
    assert pipe.end.serve(2.5) is None
    for _ in range(2):
        simulator.call_pipe()
        simulator.say_to_pipe(b"check\n")
        pipe.end.serve(3.0)
        simulator.hang_up_pipe()
        pipe.end.serve(3.0)
    assert len(pipe.asked) == 3


@pytest.mark.parametrize("said", [b"", b"che"])
def test_a_caller_who_is_slow_is_left(simulator: WindowsSimulator, pipe: Pipe, said: bytes) -> None:
    simulator.call_pipe()
    pipe.end.serve(1.0)
    if said:
        simulator.say_to_pipe(said)
    assert pipe.end.serve(1.0 + PEER_SECONDS) is None
    assert pipe.asked == []
    simulator.call_pipe()


def test_a_caller_who_never_reads_or_never_stops_is_left(simulator: WindowsSimulator, pipe: Pipe) -> None:
    simulator.call_pipe()
    simulator.say_to_pipe(b"x" * 10_000)
    pipe.end.serve(1.0)
    assert pipe.asked == [b"x" * MAX_REQUEST]
    simulator.call_pipe()
    simulator.say_to_pipe(b"check\n")
    assert pipe.end.serve(2.0) == 2.0 + PEER_SECONDS
    assert pipe.end.serve(2.0 + PEER_SECONDS) is None
    simulator.call_pipe()


def test_one_who_hangs_up_at_once_disturbs_nobody(simulator: WindowsSimulator, pipe: Pipe) -> None:
    simulator.call_pipe()
    simulator.hang_up_pipe()
    assert pipe.end.serve(1.0) is None
    assert pipe.asked == []
    simulator.call_pipe()


def test_a_second_agent_does_not_listen_at_the_same_pipe(simulator: WindowsSimulator, pipe: Pipe) -> None:
    with pytest.raises(OSError, match="CreateNamedPipeW failed with Windows error 5"):
        Pipe(simulator)
