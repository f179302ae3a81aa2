"""What ``/proc`` says about processes. Standard library only, and little of it: the daemon lives on this."""

from __future__ import annotations

import sys

if not sys.platform.startswith("linux"):
    raise ImportError(f"these are the processes of Linux; expected another adapter on {sys.platform}")

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_PROC = Path("/proc")
_STATE, _PARENT, _PGRP, _SESSION, _START_TICKS = 0, 1, 2, 3, 19
"""Fields of ``/proc/<pid>/stat`` behind the command's name (proc(5))."""


def boot_id() -> str:
    """Return a name of this boot: process ids and start times mean something only within it."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Return when a live process started, in clock ticks since boot; ``None`` if it is gone or a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[_STATE] in {"Z", "X"} else int(fields[_START_TICKS])


def holders_of(marker: bytes, leader: int | None = None) -> list[int]:
    """Return the live processes with ``marker`` in their environment, also those that left the session.

    Never this process, nor those above it, except in the session of ``leader``: a component may have called us.
    """
    found, above = [], _ancestors()
    for pid in _pids():
        # What a stranger is like is not asked: most are, and this is done for every process of the machine.
        fields = _stat(pid) if marker in _environment(pid) else None
        if fields is None or fields[_STATE] in {"Z", "X"}:
            continue
        if pid not in above or int(fields[_SESSION]) == leader:
            found.append(pid)
    return found


def end_holders(marker: bytes, leader: int | None, seconds: float) -> list[int]:
    """Kill what ``holders_of`` finds until nothing is found; return what is still there after ``seconds``."""
    deadline = time.monotonic() + seconds
    # Again and again, for one that was just listed may have started another.
    while members := holders_of(marker, leader):
        if time.monotonic() >= deadline:
            return members
        for pid in members:
            _kill_holder(pid, marker, deadline)
    return []


def group_of(pid: int) -> int | None:
    """Return a process's group, ``None`` if it is gone."""
    fields = _stat(pid)
    return None if fields is None else int(fields[_PGRP])


def leaders_with(marker: bytes) -> list[int]:
    """Return the live session leaders with ``marker`` (``NAME=value``) in their environment, oldest first."""
    found = []
    for pid in _pids():
        fields = _stat(pid) if marker in _environment(pid) else None
        if fields is None or fields[_STATE] in {"Z", "X"} or int(fields[_SESSION]) != pid:
            continue
        found.append((int(fields[_START_TICKS]), pid))
    return [pid for _, pid in sorted(found)]


def variable_of(pid: int, name: str) -> str | None:
    """Return a variable of a process's environment as it was started."""
    begin = f"{name}=".encode()
    return next((os.fsdecode(each[len(begin) :]) for each in _environment(pid) if each.startswith(begin)), None)


def is_here(pid: int) -> bool:
    """Whether a process has our root folder: in a container or chroot, the same path names another file."""
    return _same_file(_PROC / str(pid) / "root", Path("/"))


def runs_command(pid: int, folder: Path, command: Sequence[str]) -> bool:
    """Whether a process works in ``folder`` and was started by ``command``, be it through an interpreter."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return False
    return words[-len(command) :] == [os.fsencode(word) for word in command] and _same_file(
        _PROC / str(pid) / "cwd", folder
    )


def running_from(folder: Path) -> list[tuple[int, int]]:
    """Return the live processes, with their start ticks, whose program lies below a folder, whoever started them.

    Also scripts, by their interpreter; never this process nor those above it, nor one with another root folder.
    """
    # The kernel names the file itself, wherever a link leads to it.
    below, above, found = (f"{folder}/", f"{folder.resolve()}/"), _ancestors(), []
    for pid in _pids():
        ticks = start_ticks(pid) if pid not in above and _runs_below(pid, below) and is_here(pid) else None
        if ticks is not None:
            found.append((pid, ticks))
    return found


def end_process(pid: int, ticks: int, number: int) -> None:
    """Send a signal to a process if it is still that which was seen; one that has gone needs none."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_ticks(pid) == ticks:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def wait_gone(pid: int, ticks: int, timeout: float) -> bool:
    """Wait up to ``timeout`` seconds for a process to end; return whether it did."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return start_ticks(pid) != ticks or _ends(descriptor, timeout)
    finally:
        os.close(descriptor)


def pidfd_of(pid: int) -> int:
    """Return a descriptor that becomes readable when a process ends; raise ``ProcessLookupError``."""
    return os.pidfd_open(pid)


def _kill_holder(pid: int, marker: bytes, deadline: float) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The id may have been given to somebody else since it was listed; from here on it cannot be.
        if marker in _environment(pid):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            _ends(descriptor, deadline - time.monotonic())
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def _runs_below(pid: int, below: tuple[str, ...]) -> bool:
    with contextlib.suppress(OSError):
        if str((_PROC / str(pid) / "exe").readlink()).startswith(below):
            return True
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        if len(words) > 1 and (script := os.fsdecode(words[1])).startswith(below):
            # Not an editor that has it open: who runs a script is who its first line names.
            with Path(script).open("rb") as file:
                line = file.readline(256).removeprefix(b"#!").split()
            named = line[1:2] if line[:1] and line[0].endswith(b"/env") else line[:1]
            return [os.path.basename(one) for one in named] == [os.path.basename(words[0])]  # noqa: PTH119 -- bytes
    return False


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _ends(pidfd: int, timeout: float) -> bool:
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(max(0.0, timeout) * 1000))


def _pids() -> Iterator[int]:
    own = os.getpid()
    names = os.listdir(_PROC)  # noqa: PTH208 -- a path object for every process of the machine costs more than the rest
    return (int(name) for name in names if name.isdigit() and int(name) != own)


def _ancestors() -> set[int]:
    above, pid = set[int](), os.getppid()
    while pid > 0 and pid not in above:
        above.add(pid)
        fields = _stat(pid)
        pid = 0 if fields is None else int(fields[_PARENT])
    return above


def _stat(pid: int) -> list[str] | None:
    try:
        data = _read(pid, "stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may itself contain blanks and brackets; the fields follow the last one.
    return data.rpartition(b")")[2].decode("ascii").split()


def _environment(pid: int) -> list[bytes]:
    # Other users' processes, and those that just ended, are not ours.
    with contextlib.suppress(OSError):
        return _read(pid, "environ").split(b"\0")
    return []


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 -- a path object costs more than reading
        return file.read()
