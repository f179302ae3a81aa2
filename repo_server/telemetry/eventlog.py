"""Records what happens to releases, rules and credentials: each change once, with who and from where (NFR-AUD-001).

What is there now is compared with what the event log last recorded; so a change is told once, also after a restart,
and a change that happened while no server ran is told when one runs again. While the database has not been reached
since the start, nothing is known of what was recorded, and only the newest of what is seen meanwhile is kept.
"""

from __future__ import annotations

import asyncio
import logging
import pwd
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from repo_server.access.auth import Keys
from repo_server.store import DatabaseAway
from repo_server.store.entries import Changes
from repo_server.store.events import Change, Event, EventReader
from repo_server.store.intake import Intake
from repo_server.telemetry.happenings import (
    RELEASE,
    EventKind,
    Happening,
    State,
    happenings,
    states_of_keys,
    states_of_tree,
)
from repo_server.tree.live import Change as TreeChange
from repo_server.tree.live import ScanResult, Snapshot
from repo_server.waiting import pause

_LOOK_SECONDS = 1.0
_MAX_PENDING = 1000
"""Looks at the tree that wait; beyond that the ones between are left out."""
_AT_ONCE = 500
"""Changes in one entry."""
_SEEN_BEFORE = "server "
"""Subject that says that a server has recorded its first look."""

_log = logging.getLogger(__name__)

Credentials: TypeAlias = tuple[str, Path, Callable[[], Keys]]
"""Kind (``secret`` or ``token``), the file, and what is in force of it."""


@dataclass(slots=True)
class EventRecorder:
    """Follows the catalogue and the credentials of one server."""

    root: Path
    server: str
    """Tells this server from others on the same database; credentials and problems are its own."""
    clock: Callable[[], datetime]
    credentials: tuple[Credentials, ...] = ()
    lost: int = 0
    """Changes that the database refused, since the start; what only has to wait is told later."""
    _pending: list[tuple[ScanResult, datetime]] = field(default_factory=list)
    _recorded: dict[str, State] | None = None
    _tree: ScanResult | None = None
    _trouble: str | None = None
    _keys: list[Keys] = field(default_factory=list)

    def follow(self, snapshot: Snapshot) -> None:
        """Take a new state of the tree; on the event loop."""
        if len(self._pending) >= _MAX_PENDING or self._recorded is None:
            self._pending.clear()
        self._pending.append((snapshot.result, snapshot.since))

    @property
    def trouble(self) -> str | None:
        """Why events are not in the log, if they are not."""
        return self._trouble

    async def run(self, stop: asyncio.Event, intake: Intake) -> None:
        """Record until ``stop`` is set; ``intake`` is of its own, and running."""
        while not stop.is_set():
            try:
                await self._look(intake)
                self._trouble = None
            except DatabaseAway as error:
                # Not before it has been reached once: then nothing is known of what was recorded.
                self._trouble = None if self._recorded is None else f"events wait to be written: {error}"
            except Exception as error:  # noqa: BLE001 -- agents must not be without a server for it; it is tried again
                if self._trouble is None:
                    _log.exception("events could not be recorded")
                self._trouble = f"{error}"
            await pause(stop, _LOOK_SECONDS)

    async def _look(self, intake: Intake) -> None:
        if self._recorded is None:
            # What an earlier process could not write any more belongs to what was recorded.
            if intake.spool.entries or not intake.opened or (self._tree is None and not self._pending):
                return
            self._recorded = await EventReader(intake.database).states()
        while self._pending:
            result, at = self._pending[0]
            await self._record(intake, result, at)
            self._tree = result
            self._pending.pop(0)
        keys = [read() for _, _, read in self.credentials]
        if self._tree is not None and any(new is not old for new, old in zip(keys, self._keys, strict=False)):
            await self._record(intake, self._tree, self.clock())
        self._keys = keys

    async def _record(self, intake: Intake, result: ScanResult, at: datetime) -> None:
        recorded = self._recorded
        if recorded is None:
            raise RuntimeError("what was recorded has been read before")
        # The first time all releases are compared, which takes long enough to make others wait.
        changes = await asyncio.to_thread(self._changes, recorded, result)
        for start in range(0, len(changes), _AT_ONCE):
            part = changes[start : start + _AT_ONCE]
            self.lost += len(await intake.put(Changes(at, tuple(part))))
            for change in part:
                if change.state is None:
                    recorded.pop(change.subject, None)
                else:
                    recorded[change.subject] = change.state

    def _changes(self, recorded: dict[str, State], result: ScanResult) -> list[Change]:
        change = None if self._tree is None else result.since(self._tree)
        now = states_of_tree(result, self.server, change)
        for kind, _, keys in self.credentials:
            now |= states_of_keys(kind, keys(), self.server)
        now[f"{_SEEN_BEFORE}{self.server}"] = {}
        first = f"{_SEEN_BEFORE}{self.server}" not in recorded
        new_tree = first and not any(subject.startswith(RELEASE) for subject in recorded)
        changes = []
        for subject in sorted(now.keys() | self._may_be_gone(recorded, change)):
            before, after = recorded.get(subject), now.get(subject)
            if before == after:
                continue
            if subject.startswith(_SEEN_BEFORE):
                told: tuple[Event, ...] = (self._first_look(result),)
            elif first and before is None and _was_there(subject, new_tree):
                told = ()
            else:
                told = tuple(self._event(subject, item) for item in happenings(subject, before, after))
            changes.append(Change(subject, after, told))
        return changes

    def _may_be_gone(self, recorded: dict[str, State], change: TreeChange | None) -> set[str]:
        """Return what was recorded and may be there no more; of releases only those that a change took away."""
        mine = {key for key in recorded if self._is_mine(key) and (change is None or not key.startswith(RELEASE))}
        if change is not None and self._tree is not None:
            left = (self._tree.catalogue.at(path) for path in change.gone)
            mine |= {f"{RELEASE}{release.id}" for release in left if release is not None}
        return mine

    def _is_mine(self, subject: str) -> bool:
        """Whether it is for this server to say that a subject is gone: of the tree, or of its own."""
        kind, _, rest = subject.partition(" ")
        return kind in {"release", "rules"} or rest.startswith(f"{self.server} ")

    def _first_look(self, result: ScanResult) -> Event:
        details = {"releases": len(result.catalogue), "server": self.server}
        return Event(uuid.uuid4(), EventKind.FIRST_LOOK, "the tree", None, "tree", details)

    def _event(self, subject: str, item: Happening) -> Event:
        kind = subject.partition(" ")[0]
        path = next((path for name, path, _ in self.credentials if name == kind), None)
        source = "tree" if path is None else f"{kind}s file"
        if path is None and item.file is not None:
            path = self.root / item.file
        owner = _owner(path)
        details = dict(item.details or {})
        if item.file is not None:
            details["file"] = item.file
        if owner is not None:
            details["owner_uid"] = owner
        details["server"] = self.server
        return Event(uuid.uuid4(), item.kind, item.subject, item.by or _user(owner), source, details)


def _was_there(subject: str, new_tree: bool) -> bool:
    """Whether something that a server sees at its first look was there before anybody recorded anything."""
    kind = subject.partition(" ")[0]
    return kind in {"secret", "token", "rules"} or (kind == "release" and new_tree)


def _owner(path: Path | None) -> int | None:
    """Return whose file it is: whoever put it there, as far as the file system knows."""
    if path is None:
        return None
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def _user(uid: int | None) -> str | None:
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
