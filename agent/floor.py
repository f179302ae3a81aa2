"""The floor file: what the agent has once learnt to be too old stays too old (design §4).

``metadata`` in the file is reserved for the highest metadata versions and the latest time seen; it is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent import durable
from repo_server.core.errors import VersionInvalid
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
    """Read the floor file; never raises for what is in it, ``LocalFailure`` when it cannot be read."""
    return _floors(durable.load(path))


def raise_floor(path: Path, component: str, version: Version) -> Floors:
    """Make a version the lowest that is accepted from now on, durably; a lower or equal one changes nothing.

    This is for floors that someone decided. The version that was just installed is not one: with it as the floor no
    recall could ever go back (L51). Raises ``LocalFailure``.
    """
    loaded = durable.load(path)
    floors = _floors(loaded)
    before = floors.of(component)
    if before is not None and version <= before:
        return floors
    lowest = {**floors.lowest, component: version}
    rest = loaded.payload or {}
    durable.save(path, {**rest, "lowest": {name: str(lowest[name]) for name in sorted(lowest)}})
    return Floors(MappingProxyType(lowest), floors.damage, floors.known)


def _floors(loaded: durable.Loaded) -> Floors:
    if loaded.payload is None:
        return Floors(damage=loaded.damage, known=loaded.damage is None)
    entries: Any = loaded.payload.get("lowest", {})
    try:
        lowest = {str(name): Version(text) for name, text in entries.items()}
    except (AttributeError, TypeError, VersionInvalid) as error:
        return Floors(damage=f"the floor file has a form that is not known: {error}", known=False)
    return Floors(MappingProxyType(lowest), loaded.damage)
