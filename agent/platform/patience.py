"""Waiting for whoever holds a file on Windows: virus scanners and indexers let go after seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.platform.win32 import HELD

PATIENCE_SECONDS = 20.0
"""How long a held file is waited for."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class Patience:
    """Does something again and again while a file is held."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep

    def until_free(self, act: Callable[[], None]) -> None:
        """Act until nobody is in the way; after ``PATIENCE_SECONDS`` raise the last ``OSError``."""
        deadline = self._monotonic() + PATIENCE_SECONDS
        pause = FIRST_PAUSE
        while True:
            try:
                act()
            except OSError as error:
                if getattr(error, "winerror", None) not in HELD or self._monotonic() >= deadline:
                    raise
            else:
                return
            self._sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
