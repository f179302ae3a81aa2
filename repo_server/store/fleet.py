"""How many devices are on what, for metrics: counted now and then, however often it is asked (NFR-PER-003)."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from repo_server.store import DatabaseAway
from repo_server.store.database import Connection, Database
from repo_server.store.devices import DeviceFilter, DeviceReader

REFRESH_SECONDS = 60.0
_QUERY_SECONDS = 30.0
MAX_VERSIONS = 50
"""Of each component; devices say what they like, and what they say must not become endless labels."""
MAX_HEALTH = 10
OTHER = "other"
UNKNOWN = "unknown"

_HEALTH = f"""
SELECT coalesce(nullif(health, ''), '{UNKNOWN}'), count(*)
FROM ({DeviceFilter().tables("d.agent_health_status::text AS health")}) AS found GROUP BY 1
"""  # noqa: S608 -- constants


@dataclass(frozen=True, slots=True)
class Counts:
    """The fleet at one time."""

    versions: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """(Component, version, channel) → devices."""
    health: dict[str, int] = field(default_factory=dict)
    """What devices say of their health → devices."""


@dataclass(slots=True)
class Fleet:
    """Counts devices in the background, once somebody asks and the last count is old."""

    database: Database
    clock: Callable[[], float]
    counts: Counts = field(default_factory=Counts)
    _counted_at: float | None = None
    _counting: asyncio.Task[None] | None = None

    def latest(self) -> Counts:
        """Return the last count, and begin another if it is old. On the event loop; never waits."""
        old = self._counted_at is None or self.clock() - self._counted_at > REFRESH_SECONDS
        if old and self.database.ready and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self.count())
        return self.counts

    async def count(self) -> None:
        """Count now; when the database is away, the last count stays."""
        self._counted_at = self.clock()
        try:
            rows = await DeviceReader(self.database).versions(DeviceFilter())
            health = await self.database.ask(_health, _QUERY_SECONDS)
        except DatabaseAway:
            return
        versions = ((row["component"], row["version"], row["channel"] or UNKNOWN, row["devices"]) for row in rows)
        self.counts = Counts(_bounded(versions), _most(health, MAX_HEALTH))


async def _health(connection: Connection) -> dict[str, int]:
    cursor = await connection.execute(_HEALTH)
    return {str(status): int(count) for status, count in await cursor.fetchall()}


def _bounded(rows: Iterable[tuple[str, str, str, int]]) -> dict[tuple[str, str, str], int]:
    """Keep the versions of each component that most devices have, and the components that most devices have."""
    found = list(rows)
    per_component: dict[str, Counter[str]] = defaultdict(Counter)
    for component, version, _, devices in found:
        per_component[component][version] += devices
    known = sorted(per_component, key=lambda name: -per_component[name].total())[:MAX_VERSIONS]
    kept = {name: {version for version, _ in per_component[name].most_common(MAX_VERSIONS)} for name in known}
    result: Counter[tuple[str, str, str]] = Counter()
    for component, version, channel, devices in found:
        if component in kept:
            result[component, version if version in kept[component] else OTHER, channel] += devices
        else:
            result[OTHER, OTHER, channel] += devices
    return dict(result)


def _most(counts: dict[str, int], limit: int) -> dict[str, int]:
    kept = dict(Counter(counts).most_common(limit))
    rest = sum(counts.values()) - sum(kept.values())
    return kept | {OTHER: kept.get(OTHER, 0) + rest} if rest else kept
