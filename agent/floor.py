"""The floor file: what the agent has once learnt to be too old stays too old (design §4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from repo_server.core.version import Version


@dataclass(frozen=True, slots=True)
class Floors:
    """The lowest version per component that may be installed."""

    lowest: Mapping[str, Version] = field(default_factory=lambda: MappingProxyType({}))
    damage: str | None = None
    """What was wrong with the file (code STATE_DAMAGED), or ``None``."""
    known: bool = True
    """False: no copy was usable. Nothing below the installed version is accepted then."""

    def of(self, component: str) -> Version | None:
        """Return a component's floor."""
        return self.lowest.get(component)


def load_floors(path: Path) -> Floors:
    """Read the floor file; never raises for what is in it."""
    raise NotImplementedError


def raise_floor(path: Path, component: str, version: Version) -> Floors:
    """Make a version the lowest that is accepted from now on, durably; a lower or equal one changes nothing.

    This is for floors that someone decided. The version that was just installed is not one: with it as the floor no
    recall could ever go back (L51).
    """
    raise NotImplementedError
