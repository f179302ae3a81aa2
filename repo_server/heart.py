"""Tells the service manager that the server lives, as long as it does.

Called on the event loop: where that hangs, nothing is said. The scanner must make progress as well, unless it waits for
the disk: agents are served from the last catalogue while a tree hangs, and a restart would only take that from them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repo_server.servicemanager import ServiceManager

STALLED_SECONDS = 30.0
"""A look at the tree that takes longer is said; most take milliseconds."""
HOPELESS_SECONDS = 300.0
"""After so long, a scanner that does not come back from a tree that can be read hangs by itself."""
_START_SECONDS = 60.0
_UNWATCHED_SECONDS = 10.0


@dataclass(slots=True)
class Heart:
    """Beats several times within the watchdog's time."""

    manager: ServiceManager
    tree: Path
    stalled: Callable[[], float]
    """For how many seconds the present look at the tree has been running."""
    serving: bool = False
    """Whether agents are served."""
    _probe: threading.Event | None = None

    @property
    def pause(self) -> float:
        """Seconds between two beats."""
        seconds = self.manager.watchdog_seconds
        return _UNWATCHED_SECONDS if seconds is None else seconds / 3

    def begin_serving(self) -> None:
        """Say that agents are served from now on."""
        self.serving = True
        self.manager.ready()

    def end_serving(self) -> None:
        """Say that the server is about to end."""
        self.manager.stopping()

    def beat(self) -> None:
        """Say that we live, if it is so."""
        if not self.serving:
            self.manager.starting(_START_SECONDS)
        if not self._hopeless():
            self.manager.alive()

    def symptom(self) -> str | None:
        """Say what is wrong, for ``Conditions``."""
        seconds = self.stalled()
        if seconds < STALLED_SECONDS:
            return None
        return (
            f"a look at {self.tree} has been taking {STALLED_SECONDS:.0f} s or longer; its disk may hang. "
            "What was known of it stays in force"
        )

    def _hopeless(self) -> bool:
        if self.stalled() < HOPELESS_SECONDS:
            self._probe = None
            return False
        if self._probe is None:
            answered = self._probe = threading.Event()
            # A thread of its own that nobody waits for: the disk may never answer.
            threading.Thread(target=_read, args=(self.tree, answered), name="tree probe", daemon=True).start()
        return self._probe.is_set()


def _read(tree: Path, answered: threading.Event) -> None:
    try:
        with os.scandir(tree) as entries:
            next(entries, None)
    except OSError:
        return
    answered.set()
