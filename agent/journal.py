"""The journal: what is going on, written down before it is done (promise 1, NFR-REL-003).

One file says at which step a sequence is. A copy of the sequence itself, which does not change, lies beside the install
folders: if the journal is damaged, what has to be undone is still known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent.codes import Code
from agent.durable import load, remove, save
from agent.steps import Step
from repo_server.core.wire import Action

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Item:
    """One component of a sequence: an attempt at one release."""

    component: str
    version: str
    from_version: str | None
    """``None``: it was not installed."""
    action: Action
    sha256: str
    record_id: str
    """Of the one final record that this attempt ends in."""
    old_folder: int | None
    """Inode of the install folder before; ``None``: there was none. Whatever else is there later is the new one."""
    clean: bool = False
    """Whether the new folder starts without the preserved files of the old one (FR-RIN-002)."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """Components that are updated together, in this order, or not at all (FR-UPD-007)."""

    attempt_id: str
    trigger: str
    """``scheduled``, ``manual`` or ``install``."""
    started_at: datetime
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong; ``component`` is ``None`` if it was none's fault."""

    component: str | None
    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a sequence is."""

    sequence: Sequence
    step: Step = Step.DOWNLOAD
    position: int = 0
    failure: Failure | None = None
    """Why it goes back."""
    critical: tuple[Failure, ...] = ()
    """Components that could not be taken back (FR-RBK-002)."""
    went_back: bool = False
    """Whether a component was touched, so that it had to be taken back."""

    @property
    def item(self) -> Item:
        """The component at the position."""
        return self.sequence.items[self.position]


@dataclass(frozen=True, slots=True)
class Found:
    """What the journal says, and what was wrong with it."""

    entry: Entry | None
    """``None``: nothing is going on. With ``damage``: the sequence is known, how far it came is not."""
    damage: str | None = None


class Journal:
    """The journal's two files. Constructing it touches nothing."""

    def __init__(self, path: Path, copy: Path) -> None:
        self._path = path
        self._copy = copy

    def begin(self, sequence: Sequence) -> Entry:
        """Write a new sequence down, at its first step; raise ``LocalFailure``."""
        save(self._copy, _plain(sequence), keep_previous=False)
        entry = Entry(sequence)
        self.write(entry)
        return entry

    def write(self, entry: Entry) -> None:
        """Write down which step comes now; raise ``LocalFailure``."""
        save(self._path, _plain(entry), keep_previous=False)

    def clear(self) -> None:
        """Nothing is going on any more; raise ``LocalFailure``. Idempotent."""
        remove(self._path)
        remove(self._copy)

    def read(self) -> Found:
        """Return what is going on; a damaged or unknown entry is rebuilt from the copy, to be undone."""
        loaded = load(self._path, fall_back=False)
        if loaded.payload is None and loaded.damage is None:
            return Found(None)
        entry = _typed(loaded.payload, Entry)
        if entry is not None and entry.sequence.items and -1 <= entry.position <= len(entry.sequence.items):
            return Found(entry)
        damage = loaded.damage or f"{self._path} has an entry that this version does not know"
        sequence = _typed(load(self._copy, fall_back=False).payload, Sequence)
        if sequence is None or not sequence.items:
            return Found(None, f"{damage}; so is its copy {self._copy}")
        why = Failure(None, Code.STATE_DAMAGED, damage)
        return Found(Entry(sequence, Step.UNDO, len(sequence.items) - 1, why), damage)


def _plain(value: Entry | Sequence) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


def _typed(payload: Mapping[str, Any] | None, kind: type[_Value]) -> _Value | None:
    if payload is None:
        return None
    try:
        return msgspec.convert(payload, kind)
    except msgspec.ValidationError:
        return None
