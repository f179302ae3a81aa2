"""``run/<component>.log``: what programs write that a service manager starts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from agent.errors import local_failure
from agent.platform.files import FILES
from agent.platform.spoken import tail

MAX_LOG_BYTES = 8 * 1024 * 1024


class Outputs:
    """The logs of a run folder, private to their owner."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._said_before: dict[str, int] = {}

    def prepare(self, component: str) -> Path:
        """Return a component's log for a new launch; a large one is put aside. Raise ``LocalFailure``."""
        path = self._path(component)
        try:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size > MAX_LOG_BYTES:
                    path.replace(path.with_suffix(".log.1"))
            descriptor = FILES.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                self._said_before[component] = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        except OSError as error:
            raise local_failure(error, f"open {path}") from error
        return path

    def last(self, component: str) -> str:
        """Return the end of a component's log; not what was said before the launch that is ours."""
        return tail(self._path(component), self._said_before.get(component, 0))

    def _path(self, component: str) -> Path:
        return self._folder / f"{component}.log"
