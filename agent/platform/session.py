"""How a command of the agent is told to end, and how it leaves whoever called it."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

END_VARIABLE = "COMMANDIT_ENDS_WITH_STDIN"
"""On Windows, where nobody can send a signal: the end of the standard input asks a command to end."""
_STDIN = 0


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a command to end."""
    if sys.platform == "win32":
        return (signal.SIGTERM, signal.SIGINT, signal.SIGBREAK)
    return (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def told_to_end(request: Callable[..., object], environment: Mapping[str, str]) -> Iterator[None]:
    """Call ``request`` in the main thread when somebody wants this command to end."""
    before = {number: signal.signal(number, request) for number in ending_signals()}
    if environment.get(END_VARIABLE):
        threading.Thread(target=_until_input_ends, daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _until_input_ends() -> None:
    with contextlib.suppress(OSError):
        while os.read(_STDIN, 1):
            pass
    _thread.interrupt_main(signal.SIGTERM)


def leave_the_caller() -> None:
    """Leave the session and the folder of a component that called us: its end must not be ours."""
    os.chdir(os.path.abspath(os.sep))  # noqa: PTH100 -- the root of this drive
    if sys.platform != "win32":
        with contextlib.suppress(PermissionError):
            os.setsid()
