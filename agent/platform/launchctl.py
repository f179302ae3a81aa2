"""``launchctl``: the command itself, and what its ``print`` says about a job (launchctl(1))."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

LAUNCHCTL = "/bin/launchctl"
NOT_LOADED = frozenset({3, 113})
"""Exit codes for a service that launchd does not know: ESRCH, and "could not find service"."""
IN_PROGRESS = frozenset({36, 37})
"""EINPROGRESS and EALREADY: launchd is still at it."""
CANNOT_SPAWN = 78
"""EX_CONFIG: what launchd notes as exit code when it cannot start a program at all."""

_FIELD = re.compile(r"^\t(pid|runs|last exit code) = (\d+)", re.MULTILINE)
_SIGNAL = re.compile(r"^\tlast terminating signal = .*?(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Answer:
    """How ``launchctl`` came out."""

    exit_code: int | None
    """``None``: it did not answer in time."""
    output: str

    def __str__(self) -> str:
        how = "did not answer in time" if self.exit_code is None else f"ended with {self.exit_code}"
        return f"launchctl {how}{f': {self.output[:300]}' if self.output else ''}"


class Launchctl(Protocol):
    """Runs ``launchctl`` to its end."""

    def __call__(self, arguments: Sequence[str], timeout: float) -> Answer:
        """Return its answer within ``timeout`` seconds; raise ``OSError`` if there is no such command."""


def launchctl(arguments: Sequence[str], timeout: float) -> Answer:
    """Run the system's ``launchctl``."""
    try:
        done = subprocess.run(  # noqa: S603 -- a fixed program; labels have no blanks and begin with a letter or digit
            [LAUNCHCTL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
            env={},
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "")
    return Answer(done.returncode, done.stdout.decode(errors="replace").strip())


@dataclass(frozen=True, slots=True)
class Job:
    """What launchd says about a loaded service."""

    pid: int | None
    runs: int
    """How often it was started since it was loaded."""
    last_exit: int | None
    """``None``: it never ended. 128 and the signal's number if one ended it, as shells say it."""


def parse_print(output: str) -> Job:
    """Read what ``launchctl print system/<label>`` printed.

    Only its outermost level counts: below it stand the job's own arguments and environment, which may say anything.
    """
    fields = {name: int(value) for name, value in _FIELD.findall(output)}
    ended_by = _SIGNAL.search(output)
    last_exit = fields.get("last exit code") if ended_by is None else 128 + int(ended_by[1])
    return Job(fields.get("pid"), fields.get("runs", 0), last_exit)
