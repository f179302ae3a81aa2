"""Why a file or folder cannot be trusted, and the command that mends it (FR-CFG-004)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flaw:
    """One reason."""

    found: str
    """A sentence without its full stop: what was found, and what was expected."""
    command: str
