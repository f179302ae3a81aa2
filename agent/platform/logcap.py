"""``run/<component>.log``, bounded while its program writes into it. Standard library only: the daemon lives on this.

The end of a log that is too long goes to ``<component>.log.1``, then the log is emptied in place; the program has it
open for appending, goes on at its new end and notices nothing. A process that reads the programs' output instead would
have to live as long as they do, also where nothing of the agent is resident (``once``), and a program that loses its
reader is killed or hangs.

So the bound is not a hard one: ``MAX_BYTES + KEPT_BYTES`` per component, plus what is written between two looks. Each
cycle looks, and the daemon whenever it is awake; for a log that grows fast it wakes up when the log will be too long
(``SOON`` at the earliest), for one that does not it never does. What is written while a log is cut is lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from agent.platform.files import FILES

MAX_BYTES = 8 * 1024 * 1024
KEPT_BYTES = 4 * 1024 * 1024
SOON = 5.0
"""Seconds after which a log that is new, or grows fast, is looked at again."""
_HORIZON = 3600.0
"""Seconds within which somebody looks anyway."""
_CHUNK = 64 * 1024
_SETTLED = 1.0
"""Looks that are closer together say nothing about how fast a log grows."""


def trim_logs(folder: Path) -> dict[str, int]:
    """Cut every log of a run folder that is too long; return name → size before. What fails is tried the next time."""
    sizes = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".log") and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
                    if sizes[entry.name] > MAX_BYTES:
                        trim_log(Path(entry.path))
    return sizes


def trim_log(path: Path) -> None:
    """Cut one log if it is too long. Raises ``OSError``, also if it is not there."""
    descriptor = FILES.open_at_once(path, os.O_RDWR)
    try:
        status = os.fstat(descriptor)
        if status.st_size > MAX_BYTES and stat.S_ISREG(status.st_mode):
            # A full disk must not keep the log from being emptied.
            with contextlib.suppress(OSError):
                _keep_end(descriptor, path.with_name(f"{path.name}.1"))
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _keep_end(source: int, target: Path) -> None:
    copy = FILES.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        position = max(0, os.fstat(source).st_size - KEPT_BYTES)
        left = KEPT_BYTES
        while left > 0 and (chunk := FILES.read_at(source, min(_CHUNK, left), position)):
            position, left = position + len(chunk), left - len(chunk)
            if os.write(copy, chunk) != len(chunk):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(copy)


class LogWatch:
    """Remembers how fast the logs of a run folder grow."""

    __slots__ = ("_folder", "_seen")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[float, int]] = {}

    def trim(self, now: float) -> float | None:
        """Cut what is too long; return when to look again (monotonic seconds), ``None`` if that need not be soon."""
        sizes = trim_logs(self._folder)
        due = [self._next_look(name, size, now) for name, size in sizes.items()]
        self._seen = {name: seen for name, seen in self._seen.items() if name in sizes}
        return min((each for each in due if each is not None), default=None)

    def _next_look(self, name: str, size: int, now: float) -> float | None:
        then, before = self._seen.get(name, (now, -1))
        after = 0 if size > MAX_BYTES else size
        if before < 0:
            self._seen[name] = (now, after)
            return now + SOON
        if now - then < _SETTLED:
            return then + SOON
        self._seen[name] = (now, after)
        # A cycle may have cut it since.
        rate = (size - before if size >= before else size) / (now - then)
        if after + rate * _HORIZON <= MAX_BYTES:
            return None
        return now + max(SOON, (MAX_BYTES - after) / rate)
