"""Updates that wait until nobody works with the component: PURE, and the small file that remembers since when.

A program of a user session, such as the ``ui``, is not taken away from under somebody (FR-CMP-007). Its update is left
out of the plan, cycle after cycle, until there is no active session or the wait has lasted long enough; then it comes
with a graceful stop. All other components are updated meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agent import durable
from agent.manifest import Manifest
from repo_server.core.wire import Action, Update

WAITING = "waiting.json"
"""The state file's name."""
LOOK_SECONDS = 1800.0
"""While an update waits, the next check is not later than this: somebody may have logged out."""

MOST_NAMED = 3
"""Sessions that are named in a message; of others the number is."""
MOST_TEXT = 4000


@dataclass(frozen=True, slots=True)
class Waiting:
    """An update that waits."""

    installed: str
    """What is installed: once that has changed, this wait is over."""
    version: str
    since: Annotated[datetime, msgspec.Meta(tz=True)]
    """When an update of the component was first offered and had to wait, be it to this version or to an earlier one."""


Waits = Mapping[str, Waiting]
"""Component → its update that waits."""


def postponed(
    offers: Iterable[Update],
    manifest: Manifest,
    before: Waits,
    active: Callable[[], Sequence[str]],
    now: datetime,
    longest: timedelta,
) -> tuple[dict[str, str], dict[str, Waiting]]:
    """Return why components are left out of the plan now, and what is to be remembered.

    ``active`` names the active user sessions; it is asked only if that matters. What nobody waits for: a recall, a
    first installation, and a component whose package does not say that it belongs to a session.
    """
    messages: dict[str, str] = {}
    after: dict[str, Waiting] = {}
    for update in offers:
        installed = manifest.components.get(update.name)
        if installed is None or not installed.package.service.session or update.action is not Action.UPDATE:
            continue
        known, version = before.get(update.name), str(installed.version)
        # A clock that was set back must not begin the wait anew, nor make it endless.
        since = now if known is None or known.installed != version else min(known.since, now)
        until = since + longest
        # Remembered also when its time is over: should it fail, it does not wait once more.
        after[update.name] = Waiting(version, update.version[:64], since)
        if now < until and (sessions := active()):
            unnamed = len(sessions) - MOST_NAMED
            who = ", ".join(sessions[:MOST_NAMED]) + (f" and {unnamed} more" if unnamed > 0 else "")
            messages[update.name] = (
                f"{update.name} {update.version} waits for no active user session until "
                f"{until:%Y-%m-%d %H:%M} UTC; there is: {who}"
            )
    return messages, after


def in_words(waits: Waits) -> str:
    """Return what the server is told about updates that it offers and that do not come (promise 3); "" for none."""
    said = [f"{name} {one.version} waits for no user session since {one.since:%FT%TZ}" for name, one in waits.items()]
    return "; ".join(said)[:MOST_TEXT]


def load_waits(path: Path) -> dict[str, Waiting]:
    """Return what waits; an unreadable file is as none, which costs one more wait."""
    payload = durable.load(path, fall_back=False).payload or {}
    try:
        return msgspec.convert(payload.get("waiting", {}), dict[str, Waiting])
    except msgspec.ValidationError:
        return {}


def save_waits(path: Path, waits: Waits) -> None:
    """Remember it; raise ``LocalFailure``."""
    if load_waits(path) != waits:
        plain: dict[str, Any] = msgspec.to_builtins(dict(waits))
        durable.save(path, {"waiting": plain}, keep_previous=False)
