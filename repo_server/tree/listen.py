"""Listens to a tree's changes in a thread of its own. What it says is a hint: it may miss, repeat and stumble."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias

import watchfiles

Source: TypeAlias = Callable[..., Iterable[set[Any]]]
"""``watchfiles.watch``, or something that stumbles for a test."""

_STEP_MS = 10
_DEBOUNCE_MS = 50
_CHECK_MS = 1000
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_MANY_FAILURES = 3

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Listener:
    """Tells ``heard`` which paths changed, relative to the root, or ``None`` when anything may have.

    It starts anew when another folder takes the place of the root, and after every error: with pauses that grow to
    five seconds, after which everything is looked at. Errors are logged once, and when they do not end they are its
    ``trouble``. ``heard`` is called in the listener's thread.
    """

    root: Path
    heard: Callable[[set[str] | None], None]
    poll: bool = False
    """Compare times again and again, where the file system does not tell: network file systems.

    The library compares whole seconds; writers move a sidecar's time on by one (L19).
    """
    poll_ms: int = 2000
    source: Source = watchfiles.watch
    steady_seconds: float = 30.0
    """After so long without an error the next one is the first again."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    trouble: str | None = None
    """Why changes are found late, if listening fails again and again."""
    _began: float = 0.0
    _failures: int = 0
    _said: set[type[Exception]] = field(default_factory=set)

    def start(self) -> None:
        """Begin to listen."""
        self._thread = threading.Thread(target=self._run, name="tree listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and wait for the thread to end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            self._began = monotonic()
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 -- whatever the library says, the tree is watched on
                # Among others: the library gives up at a name that is not UTF-8.
                self._failed(error, pause)
            if self._stop.is_set():
                return
            self.heard(None)
            if monotonic() - self._began > self.steady_seconds:
                pause = _FIRST_PAUSE
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _failed(self, error: Exception, pause: float) -> None:
        """Say so, each kind of error once, however often it goes on like that."""
        if type(error) not in self._said:
            self._said.add(type(error))
            _log.warning(
                "watching %s failed and starts again in %.1f s: %s", self.root, pause, error,
                extra={"error": type(error).__name__},
            )  # fmt: skip
        self._failures += 1
        if self._failures >= _MANY_FAILURES:
            self.trouble = (
                f"watching {self.root} fails again and again, so changes are found up to {_LONGEST_PAUSE:.0f} s late: "
                f"{error}"
            )

    def _goes_well(self) -> None:
        seconds = monotonic() - self._began
        if self._failures and seconds > min(_LONGEST_PAUSE, self.steady_seconds):
            self._failures, self.trouble = 0, None
        if self._said and seconds > self.steady_seconds:
            self._said.clear()

    def _listen(self) -> None:
        """Listen until told to stop or until the root is another folder."""
        root = _identity(self.root)
        while not self._stop.is_set() and _identity(self.root) == root:
            # The library tells whole paths, also of a folder that was named from the working directory.
            whole = self.root.absolute()
            self._listen_to(folders_below(whole), f"{whole}{os.sep}", root)
        if not self._stop.is_set():
            _log.warning("%s is another folder now; watching that one", self.root)

    def _listen_to(self, folders: list[str], prefix: str, root: tuple[int, int]) -> None:
        """Listen to these folders until there is another one, or another root.

        Each is watched by itself: the library's own way down follows links, out of the tree.
        """
        listening = False
        for changes in self.source(
            *folders,
            recursive=False,
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            stop_event=self._stop,
            rust_timeout=_CHECK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=self.poll,
            poll_delay_ms=self.poll_ms,
            ignore_permission_denied=True,
        ):
            if self._stop.is_set():
                return
            self._goes_well()
            if not listening:
                # What changed before the system began to tell us was told to nobody.
                listening = True
                self.heard(None)
            if changes:
                self.heard({path.removeprefix(prefix).replace(os.sep, "/") for _, path in changes})
            if any(change == watchfiles.Change.added and _is_folder(path) for change, path in changes):
                return
            if _identity(self.root) != root:
                return


def folders_below(root: Path) -> list[str]:
    """Return the root and every folder below it that is no link; those that the scanner never enters stay out."""
    found: list[str] = []
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        found.append(folder)
        try:
            with os.scandir(folder) as items:
                waiting += [
                    item.path for item in items if item.name.isprintable() and item.is_dir(follow_symlinks=False)
                ]
        except OSError:
            # Gone, or not to be read: the scanner names it, and the full scan looks at it again.
            continue
    return found


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
