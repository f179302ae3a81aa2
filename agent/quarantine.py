"""What is not tried again: releases that failed too often, and components that could not be taken back.

Attempts are counted before they start, so that a release that takes the machine down is counted, too; one that ends
without the release being at fault is taken off again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import msgspec

from agent.codes import Code
from agent.durable import load, save
from agent.journal import Failure, Item

ATTEMPTS = "attempts.json"
"""The state file's name."""

MAX_ATTEMPTS = 3
MAX_RELEASES = 64
"""How many releases are remembered; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A release and the attempts at it that failed or are under way."""

    component: str
    version: str
    sha256: str
    """Other bytes are another release."""
    attempts: tuple[str, ...] = ()
    """Ids; each attempt counts once, however often it is noted."""
    code: Code = Code.INTERRUPTED
    """Why the last one failed."""
    reported: bool = False
    """Whether the server knows that it is skipped."""

    @property
    def is_quarantined(self) -> bool:
        """Whether it failed often enough to be skipped."""
        return len(self.attempts) >= MAX_ATTEMPTS

    def matches(self, item: Item) -> bool:
        """Whether an attempt is at this release."""
        return (self.component, self.version, self.sha256) == (item.component, item.version, item.sha256)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The state file ``attempts.json``. Replaced whole."""

    tried: tuple[Tried, ...] = ()
    held: tuple[Failure, ...] = ()
    """Components whose rollback failed: nothing touches them until a person says so (FR-RBK-002)."""

    def skips(self, component: str, version: str, sha256: str) -> Tried | None:
        """Return why a release is skipped, or ``None``."""
        key = (component, version, sha256)
        return next(
            (one for one in self.tried if one.is_quarantined and (one.component, one.version, one.sha256) == key), None
        )

    def holds(self, component: str) -> Failure | None:
        """Return why a component is not touched, or ``None``."""
        return next((failure for failure in self.held if failure.component == component), None)

    def refuses(self, component: str, version: str, sha256: str) -> Tried:
        """Return what is known of a release that this machine cannot install, be it nothing."""
        fresh = Tried(component, version, sha256, code=Code.NOT_SUPPORTED)
        key = (component, version, sha256)
        return next((one for one in self.tried if (one.component, one.version, one.sha256) == key), fresh)

    def counting(self, items: tuple[Item, ...], attempt_id: str, code: Code = Code.INTERRUPTED) -> Self:
        """Return it with an attempt noted at each of these releases."""
        tried = list(self.tried)
        for item in items:
            known = next((one for one in tried if one.matches(item)), None)
            fresh = known or Tried(item.component, item.version, item.sha256)
            if known is not None:
                tried.remove(known)
            attempts = tuple(dict.fromkeys((*fresh.attempts, attempt_id)))
            tried.append(replace(fresh, attempts=attempts, code=code))
        return replace(self, tried=tuple(tried[-MAX_RELEASES:]))

    def excusing(self, items: tuple[Item, ...], attempt_id: str) -> Self:
        """Return it without this attempt at these releases: they were not at fault."""
        excused = [
            replace(one, attempts=tuple(known for known in one.attempts if known != attempt_id))
            if any(one.matches(item) for item in items)
            else one
            for one in self.tried
        ]
        return replace(self, tried=tuple(one for one in excused if one.attempts or one.reported))

    def succeeded(self, components: frozenset[str]) -> Self:
        """Return it without anything about components that were just installed."""
        return replace(
            self,
            tried=tuple(one for one in self.tried if one.component not in components),
            held=tuple(failure for failure in self.held if failure.component not in components),
        )

    def holding(self, failures: tuple[Failure, ...]) -> Self:
        """Return it with components that must not be touched any more."""
        names = {failure.component for failure in failures}
        return replace(self, held=(*(one for one in self.held if one.component not in names), *failures))

    def reporting(self, tried: Tried) -> Self:
        """Return it with the note that the server knows of a skipped release."""
        others = tuple(one for one in self.tried if one != tried)
        return replace(self, tried=(*others, replace(tried, reported=True))[-MAX_RELEASES:])


def load_quarantine(path: Path) -> tuple[Quarantine, str | None]:
    """Read the state file and what was wrong with it; a damaged one is its previous copy, or empty."""
    loaded = load(path)
    if loaded.payload is None:
        return Quarantine(), loaded.damage
    try:
        return msgspec.convert(loaded.payload, Quarantine), loaded.damage
    except msgspec.ValidationError as error:
        return Quarantine(), f"{path}: {error}"


def save_quarantine(path: Path, quarantine: Quarantine) -> None:
    """Replace the state file; raise ``LocalFailure``."""
    plain: dict[str, Any] = msgspec.to_builtins(quarantine)
    save(path, plain)
