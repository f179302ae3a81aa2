"""The short way to write a ramp: ``10%..100%/24h`` (L14)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from repo_server.core.model import Rollout
from repo_server.core.rollout import share
from repo_server.core.sidecars import format_rollout
from repotool.errors import Usage

_RAMP = re.compile(
    r"(?:(?P<start>\d+(?:\.\d+)?)%\.\.)?(?P<end>\d+(?:\.\d+)?)%(?:/(?P<count>\d+)(?P<unit>[smhdw]))?",
    re.ASCII,
)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MAX_SECONDS = 366 * 86400
EXPECTED = "10%..100%/24h, or 25% for a fixed share (units: s m h d w)"


@dataclass(frozen=True, slots=True)
class Ramp:
    """A share of devices that grows in a straight line; it has no start yet."""

    from_share: float
    """0 to 1."""
    to_share: float
    duration_seconds: int

    def starting(self, start: datetime) -> Rollout:
        """Return the rollout that begins at an instant, in whole seconds."""
        return Rollout(start.replace(microsecond=0), self.from_share, self.to_share, self.duration_seconds)


def parse_ramp(text: str) -> Ramp:
    """Read ``FROM%..TO%/DURATION`` or ``SHARE%``; raise ``Usage``."""
    match = _RAMP.fullmatch(text.replace(" ", ""))
    if match is None:
        raise Usage(f"{text!r} is not a rollout; expected {EXPECTED}")
    end = float(match["end"]) / 100
    start = float(match["start"]) / 100 if match["start"] else end
    seconds = int(match["count"]) * _SECONDS[match["unit"]] if match["count"] else 0
    if not start <= end <= 1:
        raise Usage(f"{text!r}: a ramp grows and ends at 100% at most; expected {EXPECTED}")
    if seconds > _MAX_SECONDS or (start < end) != (seconds > 0):
        raise Usage(
            f"{text!r}: a growing share needs a duration of at most 366d, a fixed one none; expected {EXPECTED}"
        )
    return Ramp(start, end, seconds)


def rewritten(before: bytes | None, rollout: Rollout) -> bytes:
    """Return a ``.rollout`` that starts anew and keeps what else the old one said: seed, halt, unknown fields (L16).

    ``before`` must have been checked with ``parse_rollout``.
    """
    fresh: dict[str, Any] = msgspec.json.decode(format_rollout(rollout))
    kept: dict[str, Any] = {} if before is None else msgspec.json.decode(before)
    kept.pop("halted", None)
    return msgspec.json.format(msgspec.json.encode(kept | fresh), indent=2) + b"\n"


def describe(rollout: Rollout | None, now: datetime) -> str:
    """Say in a few words how far a ramp is."""
    if rollout is None:
        return "everybody"
    if rollout.paused:
        return "halted" if rollout.halted else "paused"
    if now < rollout.start:
        return f"starts {rollout.start:%Y-%m-%d %H:%M%z}"
    return f"{share(rollout, now):.1%}"
