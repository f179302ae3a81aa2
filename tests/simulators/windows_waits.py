"""What Windows has for a program that waits: events, one named pipe, and the other end of a service's program."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from ctypes import POINTER, c_void_p, cast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.platform import win32
from agent.platform.win32 import ProcessEntry, ServiceTableEntry

_STEP = 0.002


@dataclass
class SimulatedEvent:
    """An event; one that resets itself lets one wait through."""

    resets_itself: bool
    is_set: bool = False


@dataclass
class SimulatedPipe:
    """The one instance of a named pipe: what is under way on our side, and who is at the other."""

    name: str
    rights: str
    rejects_remote: bool
    under_way: str = ""
    """``connect`` or ``read``."""
    event: int = 0
    buffer: tuple[int, int] = (0, 0)
    result: int | None = None
    """Of what was under way: bytes, or a negative error number."""
    connected: bool = False
    inbox: bytes = b""
    hung_up: bool = False
    heard: bytes = b""


class WaitsOfWindows:
    """The functions; a part of ``WindowsSimulator``, whose state it works on."""

    open_handles: dict[int, Any]
    pipe: SimulatedPipe | None
    by_windows: bool
    statuses: list[tuple[int, int, int, int, int]]
    control: Any
    leaders: set[int]

    # Events

    def CreateEventW(self, security: Any, manual: int, state: int, name: Any) -> int:  # noqa: N802
        assert (security, state, name) == (None, 0, None)
        return self._handle(SimulatedEvent(resets_itself=not manual))

    def SetEvent(self, handle: int) -> int:  # noqa: N802
        self.open_handles[handle].is_set = True
        return 1

    def ResetEvent(self, handle: int) -> int:  # noqa: N802
        self.open_handles[handle].is_set = False
        return 1

    def WaitForSingleObject(self, handle: int, milliseconds: int) -> int:  # noqa: N802
        return self._wait([handle], milliseconds)

    def WaitForMultipleObjects(self, count: int, handles: int, everything: int, milliseconds: int) -> int:  # noqa: N802
        assert everything == 0
        array = cast(handles, POINTER(c_void_p * count)).contents
        return self._wait([int(handle or 0) for handle in array], milliseconds)

    def SetConsoleCtrlHandler(self, handler: Any, add: int) -> int:  # noqa: N802
        self.console = handler if add else None
        return 1

    def _wait(self, handles: list[int], milliseconds: int) -> int:
        deadline = time.monotonic() + milliseconds / 1000
        while True:
            for number, handle in enumerate(handles):
                if self._take(self.open_handles[handle]):
                    return number
            if time.monotonic() >= deadline:
                return win32.WAIT_TIMEOUT
            time.sleep(_STEP)

    def _take(self, thing: Any) -> bool:
        if isinstance(thing, SimulatedEvent):
            was_set = thing.is_set
            thing.is_set = was_set and not thing.resets_itself
            return was_set
        if isinstance(thing, int):
            return has_ended(thing)
        return thing.poll() is not None

    # The table of processes

    def CreateToolhelp32Snapshot(self, what: int, pid: int) -> int:  # noqa: N802
        assert (what, pid) == (2, 0)
        return self._handle(iter(process_table({*self.leaders, os.getsid(0)})))

    def Process32FirstW(self, handle: int, entry: Any) -> int:  # noqa: N802
        assert entry.contents.size == ctypes.sizeof(ProcessEntry) == 568
        return self.Process32NextW(handle, entry)

    def Process32NextW(self, handle: int, entry: Any) -> int:  # noqa: N802
        for entry.contents.pid, entry.contents.parent in self.open_handles[handle]:
            return 1
        return self._fail(18)

    def GetProcessTimes(self, handle: int, began: Any, *others: Any) -> int:  # noqa: N802
        assert len(others) == 3
        facts = process_facts(self.open_handles[handle].pid)
        began.contents.value = 0 if facts is None else facts[2]
        return int(facts is not None)

    # One named pipe

    def CreateNamedPipeW(  # noqa: N802
        self, name: str, mode: int, kind: int, most: int, out: int, into: int, timeout: int, security: Any
    ) -> int:
        assert (mode, most) == (0x4008_0003, 1), "overlapped, both ways, and the first of its name"
        assert (out, into, timeout) == (512, 512, 0)
        if self.pipe is not None:
            self._fail(win32.ERROR_ACCESS_DENIED)
            return -1
        rights = self._memory[security.contents.descriptor].value
        self.pipe = SimulatedPipe(name, rights, rejects_remote=bool(kind & 8))
        return self._handle(self.pipe)

    def ConnectNamedPipe(self, handle: int, overlapped: Any) -> int:  # noqa: N802
        pipe = self.open_handles[handle]
        if pipe.connected:
            return self._fail(win32.ERROR_PIPE_CONNECTED)
        return self._begin(pipe, "connect", overlapped)

    def DisconnectNamedPipe(self, handle: int) -> int:  # noqa: N802
        pipe = self.open_handles[handle]
        pipe.connected, pipe.inbox, pipe.hung_up = False, b"", False
        return 1

    def ReadFile(self, handle: int, buffer: int, size: int, moved: Any, overlapped: Any) -> int:  # noqa: N802
        assert moved is None, "it cannot know yet"
        pipe = self.open_handles[handle]
        if pipe.hung_up and not pipe.inbox:
            return self._fail(109)
        pipe.buffer = (buffer, size)
        return self._begin(pipe, "read", overlapped)

    def WriteFile(self, handle: int, buffer: int, size: int, moved: Any, overlapped: Any) -> int:  # noqa: N802
        assert moved is None, "it cannot know yet"
        assert not overlapped.contents.event
        pipe = self.open_handles[handle]
        if not pipe.connected or pipe.hung_up:
            return self._fail(232)
        pipe.heard += ctypes.string_at(buffer, size)
        return 1

    def GetOverlappedResult(self, handle: int, overlapped: Any, moved: Any, wait: int) -> int:  # noqa: N802
        pipe = self.open_handles[handle]
        if not overlapped.contents.event:
            return 1
        if pipe.under_way:
            assert not wait, "what was cancelled has ended"
            return self._fail(win32.ERROR_IO_INCOMPLETE)
        if pipe.result is not None and pipe.result < 0:
            return self._fail(-pipe.result)
        moved.contents.value = pipe.result or 0
        return 1

    def CancelIo(self, handle: int) -> int:  # noqa: N802
        pipe = self.open_handles[handle]
        if pipe.under_way:
            pipe.under_way, pipe.result = "", -995
        return 1

    def _begin(self, pipe: SimulatedPipe, what: str, overlapped: Any) -> int:
        pipe.under_way, pipe.event, pipe.result = what, overlapped.contents.event, None
        assert not self.open_handles[pipe.event].is_set, "reset before something begins"
        self._progress(pipe)
        return self._fail(win32.ERROR_IO_PENDING)

    def _progress(self, pipe: SimulatedPipe) -> None:
        if pipe.under_way == "connect" and pipe.connected:
            pipe.result = 0
        elif pipe.under_way == "read" and pipe.inbox:
            address, size = pipe.buffer
            piece, pipe.inbox = pipe.inbox[:size], pipe.inbox[size:]
            ctypes.memmove(address, piece, len(piece))
            pipe.result = len(piece)
        elif pipe.under_way == "read" and pipe.hung_up:
            pipe.result = -109
        else:
            return
        pipe.under_way = ""
        self.SetEvent(pipe.event)

    # The other end of the pipe

    def call_pipe(self) -> None:
        """Connect, as another program does."""
        assert self.pipe is not None
        assert not self.pipe.connected, "the one instance is busy"
        self.pipe.connected, self.pipe.heard = True, b""
        self._progress(self.pipe)

    def say_to_pipe(self, text: bytes) -> None:
        """Write into it."""
        assert self.pipe is not None
        self.pipe.inbox += text
        self._progress(self.pipe)

    def hang_up_pipe(self) -> None:
        """Close the other end."""
        assert self.pipe is not None
        self.pipe.hung_up = True
        self._progress(self.pipe)

    # The service control manager, as a service's program meets it

    def StartServiceCtrlDispatcherW(self, table: int) -> int:  # noqa: N802
        if not self.by_windows:
            return self._fail(win32.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT)
        entries = cast(table, POINTER(ServiceTableEntry * 2)).contents
        assert (entries[0].name, entries[1].name) == ("commandit-updater", None)
        thread = threading.Thread(target=entries[0].main, args=(1, None))
        thread.start()
        thread.join()
        return 1

    def RegisterServiceCtrlHandlerExW(self, name: str, handler: Any, context: Any) -> int:  # noqa: N802
        assert (name, context) == ("commandit-updater", None)
        self.control = handler
        return 0x5E

    def SetServiceStatus(self, handle: int, status: Any) -> int:  # noqa: N802
        assert handle == 0x5E
        one = status.contents
        self.statuses.append(
            (one.current_state, one.controls_accepted, one.service_exit_code, one.check_point, one.wait_hint)
        )
        return 1

    # Of the simulator

    _memory: dict[int, Any]

    def _handle(self, what: Any) -> int:
        raise NotImplementedError

    def _fail(self, number: int) -> int:
        raise NotImplementedError


class OtherProcess:
    """A process that nobody here started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._began = (process_facts(pid) or (0, 0, 0))[2]

    def poll(self) -> int | None:
        facts = process_facts(self.pid)
        return 1 if facts is None or facts[2] != self._began else None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def process_table(leaders: set[int]) -> list[tuple[int, int]]:
    """Return process id and parent of all in these sessions.

    One whose parent has ended keeps it on Windows: here that is the leader of its session.
    """
    numbers = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 -- much quicker
    facts = {pid: process_facts(pid) for pid in numbers if _session(pid) in leaders}
    there = {pid: one for pid, one in facts.items() if one is not None}
    return [
        (pid, parent if parent in there and there[parent][1] == session else session)
        for pid, (parent, session, _) in there.items()
        if pid != session
    ] + [(pid, 0) for pid, (_, session, _) in there.items() if pid == session]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def process_facts(pid: int) -> tuple[int, int, int] | None:
    """Return the parent, the session and the start of a process that is alive."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else (int(fields[1]), int(fields[3]), int(fields[19]))


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a child that waits to be reaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
