"""How the resident agent waits where there are signals: on Linux and macOS. Standard library only."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("these are the signals of POSIX; expected agent.platform.windows_waiting on Windows")

import contextlib
import os
import select
import signal
from collections.abc import Iterable, Mapping, Sequence

TYPE_CHECKING = False
"""Not imported: the module typing would stay in an idle agent's memory (NFR-PER-001)."""
if TYPE_CHECKING:
    from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Child:
    """A process that was started and not reaped yet."""

    __slots__ = ("_pid",)

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Raise ``OSError``."""
        self._pid = os.posix_spawn(command[0], list(command), dict(environment), setsigmask=[])

    def ended(self) -> int | None:
        """Return its exit code if it has ended, once; negative: the signal that ended it."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def ask_to_end(self) -> None:
        """Send SIGTERM: it turns back where it can, and finishes what it must; a kill would be safe as well."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    def end(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)


class Waiting:
    """Waits for descriptors, signals and the end of children. SIGTERM and SIGINT: end; SIGHUP: check now."""

    __slots__ = ("_before", "_read", "_write", "check_now", "ending")

    child_seconds: float | None = None
    """How long a child may go on when everything is to end; ``None``: the service manager decides."""

    def __init__(self) -> None:
        self.ending = False
        self.check_now = False
        self._read = self._write = -1
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        self._before[0] = signal.set_wakeup_fd(self._write)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before.pop(0))
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def wait(self, child: Child | None, descriptors: Iterable[int], seconds: float) -> None:
        """Return when something may have happened, at the latest after ``seconds``."""
        # SIGCHLD comes for the child.
        del child
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        poll.poll(seconds * 1000)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 64):
                pass

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self.check_now = True
        elif number in {signal.SIGTERM, signal.SIGINT}:
            self.ending = True
