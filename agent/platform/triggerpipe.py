"""The named pipe for "update now" on Windows: administrators of this machine only, never waited for (FR-UPD-001B).

One caller is served at a time; the next one waits in Windows, and for ``PEER_SECONDS`` at most.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from ctypes import c_uint32
from pathlib import Path

from agent.platform import win32
from agent.platform.win32 import Overlapped, SecurityAttributes, Win32, failure_of, load_win32
from agent.platform.windows_access import ONLY_US, descriptor_in_memory
from agent.trigger import MAX_REQUEST, PEER_SECONDS

PIPE = r"\\.\pipe\commandit-updater"
_DUPLEX, _OVERLAPPED, _FIRST_INSTANCE = 0x3, 0x4000_0000, 0x8_0000
_REJECT_REMOTE_CLIENTS = 0x8
_BUFFER_BYTES = 512


class _State(enum.Enum):
    CALLING = "nobody called yet"
    HEARING = "somebody speaks"
    HANGING_UP = "the answer is written; it is lost if we hang up before it was read"


class TriggerPipe:
    """Listens once ``open`` has returned. ``answer`` gets a request and returns the line to send back."""

    def __init__(self, run_folder: Path, answer: Callable[[bytes], bytes], api: Win32 | None = None) -> None:
        """``run_folder`` is where the other systems have their socket; a pipe lies in no folder."""
        del run_folder
        self._api = api or load_win32()
        self._answer = answer
        self._pipe = 0
        self._waiting = Overlapped()
        self._buffer = (ctypes.c_char * MAX_REQUEST)()
        self._state = _State.CALLING
        self._until = 0.0
        self._said = b""

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return bool(self._pipe)

    def open(self) -> None:
        """Listen. Raises ``OSError``, also if somebody else listens there: that is none of ours."""
        kernel = self._api.kernel32
        with descriptor_in_memory(self._api, ONLY_US) as descriptor:
            security = SecurityAttributes(ctypes.sizeof(SecurityAttributes), descriptor.value, 0)
            pipe = kernel.CreateNamedPipeW(
                PIPE, _DUPLEX | _OVERLAPPED | _FIRST_INSTANCE, _REJECT_REMOTE_CLIENTS, 1, _BUFFER_BYTES, _BUFFER_BYTES,
                0, ctypes.pointer(security),
            )  # fmt: skip
        if pipe in {None, win32.INVALID_HANDLE}:
            raise self._api.failure("CreateNamedPipeW")
        event = kernel.CreateEventW(None, 1, 0, None)
        if not event:
            failure = self._api.failure("CreateEventW")
            kernel.CloseHandle(pipe)
            raise failure
        self._pipe = pipe
        self._waiting = Overlapped(event=event)
        self._listen()

    def close(self) -> None:
        """Stop listening; idempotent."""
        if self._pipe:
            self._cancel()
            self._api.kernel32.CloseHandle(self._pipe)
            self._api.kernel32.CloseHandle(self._waiting.event)
            self._pipe = 0

    def descriptors(self) -> list[int]:
        """Return what to wait for until ``serve`` has something to do: handles."""
        return [self._waiting.event] if self._pipe else []

    def serve(self, now: float) -> float | None:
        """Do what can be done without waiting; return when a caller's time is over (as ``now``, monotonic seconds)."""
        while self._pipe:
            moved = c_uint32()
            done = self._api.kernel32.GetOverlappedResult(
                self._pipe, ctypes.pointer(self._waiting), ctypes.pointer(moved), 0
            )
            if done:
                self._go_on(self._buffer.raw[: moved.value], now)
            elif self._api.last_error() != win32.ERROR_IO_INCOMPLETE:
                self._listen()
            elif self._state is _State.CALLING:
                return None
            elif now < self._until:
                return self._until
            else:
                self._cancel()
                self._listen()
        return None

    def _cancel(self) -> None:
        """End what is under way; until Windows says that it has, the memory for it is not ours."""
        self._api.kernel32.CancelIo(self._pipe)
        moved = c_uint32()
        self._api.kernel32.GetOverlappedResult(self._pipe, ctypes.pointer(self._waiting), ctypes.pointer(moved), 1)

    def _go_on(self, piece: bytes, now: float) -> None:
        if self._state is _State.CALLING:
            self._until = now + PEER_SECONDS
            self._hear(_State.HEARING)
        elif self._state is _State.HANGING_UP or not piece:
            self._listen()
        else:
            self._said += piece
            if b"\n" in self._said or len(self._said) >= MAX_REQUEST:
                self._say(self._answer(self._said))
                self._hear(_State.HANGING_UP)
            else:
                self._hear(_State.HEARING)

    def _listen(self) -> None:
        """Wait for the next caller."""
        kernel = self._api.kernel32
        kernel.DisconnectNamedPipe(self._pipe)
        self._state, self._said = _State.CALLING, b""
        kernel.ResetEvent(self._waiting.event)
        if kernel.ConnectNamedPipe(self._pipe, ctypes.pointer(self._waiting)):
            return
        number = self._api.last_error()
        if number == win32.ERROR_PIPE_CONNECTED:
            # Nothing is under way then; the result of it is that somebody is there.
            kernel.SetEvent(self._waiting.event)
            self._waiting.internal = None
        elif number != win32.ERROR_IO_PENDING:
            self.close()
            raise failure_of("ConnectNamedPipe", number)

    def _hear(self, state: _State) -> None:
        self._state = state
        kernel = self._api.kernel32
        kernel.ResetEvent(self._waiting.event)
        # Its end, and any error, is what GetOverlappedResult says.
        pending = kernel.ReadFile(
            self._pipe, ctypes.addressof(self._buffer), MAX_REQUEST, None, ctypes.pointer(self._waiting)
        )
        if not pending and self._api.last_error() not in {win32.ERROR_IO_PENDING, win32.ERROR_MORE_DATA}:
            self._listen()

    def _say(self, line: bytes) -> None:
        # A short line fits into an empty buffer, so this does not wait; who hung up does not want it.
        kernel = self._api.kernel32
        sending, moved = Overlapped(), c_uint32()
        text = ctypes.create_string_buffer(line, len(line))
        if kernel.WriteFile(self._pipe, ctypes.addressof(text), len(line), None, ctypes.pointer(sending)) or (
            self._api.last_error() == win32.ERROR_IO_PENDING
        ):
            kernel.GetOverlappedResult(self._pipe, ctypes.pointer(sending), ctypes.pointer(moved), 0)
