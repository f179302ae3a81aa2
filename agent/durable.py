"""State files that survive power cuts and garbage: atomic, checksummed, with a previous copy (promise 1).

A state file is a plain JSON object that people and scripts can read, with two keys more: ``format`` and ``checksum``
(SHA-256 over the rest in canonical form). Beside it, ``<name>.prev`` is the version before.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
MAX_BYTES = 16 * 1024 * 1024


class Source(enum.StrEnum):
    """Which copy a payload came from."""

    CURRENT = "current"
    PREVIOUS = "previous"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a state file says, and what was wrong with it."""

    payload: dict[str, Any] | None
    """``None``: there is no usable copy; start from the default."""
    damage: str | None
    """A sentence for the log (code STATE_DAMAGED), or ``None``; a file that never was is no damage."""
    source: Source


def save(path: Path, payload: Mapping[str, Any], *, keep_previous: bool = True) -> None:
    """Replace a state file: afterwards, also after a power cut, there is the old one or the new one.

    ``payload`` holds what JSON can hold; ``checksum`` and ``format`` are reserved. Mode 0600.
    Raises ``LocalFailure``; nothing has changed then.
    """
    raise NotImplementedError


def load(path: Path, *, fall_back: bool = True) -> Loaded:
    """Read a state file, or its previous copy when the file is missing or damaged (NFR-REL-003).

    Never raises for what is in the files; ``LocalFailure`` when the system refuses to read them.
    """
    raise NotImplementedError


def remove(path: Path) -> None:
    """Remove a state file and its previous copy, durably; what is not there is removed already."""
    raise NotImplementedError


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace any file whole and durably; raise ``LocalFailure``."""
    raise NotImplementedError


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; raise ``OSError``."""
    raise NotImplementedError


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed writer left in a folder; only while holding the lock."""
    raise NotImplementedError
