"""Ramps: which share of devices a release is for at an instant, and whether a device is in it (L14)."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from repo_server.core.model import Rollout
from repo_server.core.version import Version

_SPACE = 2**64


def share(rollout: Rollout, now: datetime) -> float:
    """Return the share of devices that may have the release, 0 to 1; it only grows with time."""
    elapsed = (now - rollout.start).total_seconds()
    if elapsed < 0:
        return 0.0
    if elapsed >= rollout.duration_seconds:
        return rollout.to_share
    progress = elapsed / rollout.duration_seconds
    return min(rollout.to_share, rollout.from_share + (rollout.to_share - rollout.from_share) * progress)


def position(rollout: Rollout, version: Version, device_id: str) -> int:
    """Return where a device stands in the queue, 0 to 2^64 - 1; the seed defaults to the version."""
    seed = rollout.seed if rollout.seed is not None else version.text
    return int.from_bytes(hashlib.sha256(f"{seed}:{device_id}".encode()).digest()[:8], "big")


def includes(rollout: Rollout, version: Version, device_id: str | None, now: datetime) -> bool:
    """Whether the ramp has reached a device; one without an id only gets what everybody gets."""
    if rollout.paused:
        return False
    current = share(rollout, now)
    if current >= 1.0:
        return True
    # Scaling a float by a power of two is exact, and Python compares an int with a float exactly.
    return device_id is not None and position(rollout, version, device_id) < current * _SPACE


def reaches_at(rollout: Rollout, version: Version, device_id: str | None) -> datetime | None:
    """Return when the ramp will reach a device, to about a second; ``None``: paused, or not as it stands."""
    if rollout.paused:
        return None
    where = 1.0 if device_id is None else position(rollout, version, device_id) / _SPACE
    if where > rollout.to_share or (where == rollout.to_share < 1.0):
        return None
    if where < rollout.from_share:
        return rollout.start
    rise = rollout.to_share - rollout.from_share
    fraction = (where - rollout.from_share) / rise if rise else 0.0
    try:
        return rollout.start + timedelta(seconds=fraction * rollout.duration_seconds)
    except OverflowError:  # a start in the year 9999 is somebody's "never"
        return None
