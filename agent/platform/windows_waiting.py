"""How the resident agent waits where there are no signals: on Windows, by handles."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from agent.platform.session import END_VARIABLE
from agent.platform.win32 import WAIT_FAILED, ConsoleHandler, Win32, load_win32

_SYNCHRONIZE = 0x10_0000
_NO_WINDOW, _OWN_GROUP = 0x0800_0000, 0x0200
_WAIT_FAILED_PAUSE = 1.0
END_SECONDS = 20.0
"""How long a child may go on when the agent is to end. It is ended then, which is safe at any moment: Windows does
the same a little later when it shuts down, and the next start recovers."""
_CTRL_BREAK = 1


class Child:
    """A process that was started. It is asked to end by the end of its standard input (``session.py``)."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Raise ``OSError``."""
        self._process = subprocess.Popen(  # noqa: S603 -- ourselves
            command,
            env={**environment, END_VARIABLE: "1"},
            stdin=subprocess.PIPE,
            # In a group of its own, so that a Ctrl-C at a console comes to us alone, and we ask it to end.
            creationflags=_NO_WINDOW | _OWN_GROUP,
        )

    @property
    def pid(self) -> int:
        """Its id, which stays its own as long as this object is there."""
        return self._process.pid

    def ended(self) -> int | None:
        """Return its exit code if it has ended."""
        code = self._process.poll()
        if code is not None:
            self.ask_to_end()
        return code

    def ask_to_end(self) -> None:
        """Close its standard input: it turns back where it can, and finishes what it must."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def end(self) -> None:
        """End it (``TerminateProcess``)."""
        self._process.kill()


class Waiting:
    """Waits for handles, for ``request_end`` and ``request_check`` from other threads, and for the end of a child."""

    child_seconds: float | None = END_SECONDS

    def __init__(self, api: Win32 | None = None) -> None:
        self._api = api or load_win32()
        self._event = self._api.kernel32.CreateEventW(None, 0, 0, None)
        if not self._event:
            raise self._api.failure("CreateEventW")
        self.ending = False
        self.check_now = False
        self._on_console = ConsoleHandler(self._console)

    def __enter__(self) -> Self:
        # Without a console, in a service, there is nobody who could press a key.
        self._api.kernel32.SetConsoleCtrlHandler(self._on_console, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._api.kernel32.SetConsoleCtrlHandler(self._on_console, 0)
        self._api.kernel32.CloseHandle(self._event)

    def request_end(self) -> None:
        """Make everything end; from any thread."""
        self.ending = True
        self._api.kernel32.SetEvent(self._event)

    def request_check(self) -> None:
        """Make a check now; from any thread."""
        self.check_now = True
        self._api.kernel32.SetEvent(self._event)

    def wait(self, child: Child | None, descriptors: Iterable[int], seconds: float) -> None:
        """Return when something may have happened, at the latest after ``seconds``; descriptors are handles here."""
        kernel = self._api.kernel32
        process = None if child is None else kernel.OpenProcess(_SYNCHRONIZE, 0, child.pid)
        handles = [self._event, *([process] if process else []), *descriptors]
        array = (ctypes.c_void_p * len(handles))(*handles)
        milliseconds = max(0, min(int(seconds * 1000), 0x7FFF_FFFF))
        try:
            if kernel.WaitForMultipleObjects(len(handles), ctypes.addressof(array), 0, milliseconds) == WAIT_FAILED:
                # Rather late than in a loop that never rests.
                kernel.WaitForSingleObject(self._event, int(_WAIT_FAILED_PAUSE * 1000))
        finally:
            if process:
                kernel.CloseHandle(process)

    def _console(self, kind: int) -> int:
        if kind == _CTRL_BREAK:
            self.request_check()
        else:
            self.request_end()
        return 1


assert sys.maxsize > 2**32, "handles are those of a 64-bit Windows (L4)"  # noqa: S101 -- releases are for no other
