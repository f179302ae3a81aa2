"""What programs are called by, and the end of what they say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

TAIL_BYTES = 2000
OUTPUT_BYTES = 8 * 1024
"""How much of a program's output is kept: its end. One event of the log holds it whole."""
FLOOD_BYTES = 1024 * 1024
"""A program that wrote more is read slowly from then on, so that it waits instead of us."""
FLOOD_PAUSE = 0.01
CHUNK = 64 * 1024


class LastWords:
    """The end of an output that may be endless."""

    def __init__(self) -> None:
        self._kept = b""
        self._total = 0

    @property
    def is_flood(self) -> bool:
        """Whether so much was said that it may be read slowly."""
        return self._total > FLOOD_BYTES

    def add(self, chunk: bytes) -> None:
        """Take what came next."""
        self._total += len(chunk)
        self._kept = (self._kept + chunk)[-OUTPUT_BYTES:]

    def text(self) -> str:
        """Return the end of the output, and how much is missing before it."""
        text = self._kept.decode(errors="replace").strip()
        cut = self._total - len(self._kept)
        return f"[{cut} bytes before this were cut]\n{text}" if cut else text


def resolve(command: Sequence[str], folder: Path) -> list[str]:
    """Return a command whose program is the folder's own where it has it, else the system's."""
    own = folder / command[0]
    return [str(own) if own.exists() else command[0], *command[1:]]


def tail(path: Path, start: int = 0) -> str:
    """Return the end of a file from ``start`` on, "" if it is not there; all of it if it was made shorter since."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= end else 0, end - TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
