"""The event log as SQL: a change is written with the state that it leads to, so that it is told once (design §7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg.rows import dict_row

from repo_server.store.database import Connection, Database
from repo_server.store.text import clean, clean_json

_READ_SECONDS = 30.0

# Several servers see the same change; the one whose state is written first tells it.
_WRITE = """
WITH changes AS MATERIALIZED (
    SELECT * FROM unnest(%(subjects)s::text[], %(states)s::jsonb[]) AS t (subject, state)
), put AS (
    INSERT INTO event_states AS s (subject, state)
    SELECT subject, state FROM changes WHERE state IS NOT NULL ORDER BY subject
    ON CONFLICT (subject) DO UPDATE SET state = excluded.state WHERE s.state IS DISTINCT FROM excluded.state
    RETURNING s.subject
), gone AS (
    DELETE FROM event_states AS s USING changes AS c WHERE s.subject = c.subject AND c.state IS NULL
    RETURNING s.subject
), moved AS (
    SELECT subject FROM put UNION ALL SELECT subject FROM gone
)
INSERT INTO event_log (event_id, occurred_at, kind, subject, actor, source, details)
SELECT e.event_id, %(at)s, e.kind, e.shown, e.actor, e.source, e.details
FROM unnest(%(ids)s::uuid[], %(keys)s::text[], %(kinds)s::text[], %(shown)s::text[], %(actors)s::text[],
    %(sources)s::text[], %(details)s::jsonb[]) AS e (event_id, key, kind, shown, actor, source, details)
JOIN moved ON moved.subject = e.key
ON CONFLICT DO NOTHING
"""
# Only what is asked for stands in the statement: a prepared one with "or nothing is asked" uses no index.
_CONDITIONS = {
    "kind": "kind = %(kind)s",
    "subject": "subject = %(subject)s",
    "since": "occurred_at >= %(since)s",
    "before": "(occurred_at, event_id) < (%(before)s, %(before_id)s::uuid)",
}


class Event(msgspec.Struct, frozen=True):
    """One line of the event log; when it happened stands with the change."""

    event_id: UUID
    kind: str
    subject: str
    actor: str | None
    source: str
    """Where it was done: ``tree``, ``secrets file``, ``token`` …"""
    details: dict[str, Any]


class Change(msgspec.Struct, frozen=True):
    """A subject's new state (``None``: it is gone), and the events that it consists of."""

    subject: str
    state: dict[str, Any] | None
    events: tuple[Event, ...]


def write_changes(changes: tuple[Change, ...], at: datetime) -> Callable[[Connection], Awaitable[None]]:
    """Return what writes changes, each subject at most once among them."""
    events = [(change.subject, event) for change in changes for event in change.events]
    values = {
        "at": at,
        "subjects": [clean(change.subject, 1000) for change in changes],
        "states": [None if change.state is None else clean_json(change.state) for change in changes],
        "ids": [event.event_id for _, event in events],
        "keys": [clean(subject, 1000) for subject, _ in events],
        "kinds": [event.kind for _, event in events],
        "shown": [clean(event.subject, 500) for _, event in events],
        "actors": [clean(event.actor, 200) for _, event in events],
        "sources": [event.source for _, event in events],
        "details": [clean_json(event.details) for _, event in events],
    }

    async def write(connection: Connection) -> None:
        await connection.execute(_WRITE, values)

    return write


def page_query(wanted: Mapping[str, Any], limit: int) -> tuple[str, dict[str, Any]]:
    """Return the statement for a page of events, newest first, and its values; filters that are ``None`` count not."""
    values = {name: value for name, value in wanted.items() if value is not None}
    conditions = [text for name, text in _CONDITIONS.items() if name in values]
    query = f"""
    SELECT event_id, occurred_at, kind, subject, actor, source, details FROM event_log
    WHERE {" AND ".join(conditions) or "true"} ORDER BY occurred_at DESC, event_id DESC LIMIT %(limit)s
    """  # noqa: S608 -- constants
    return query, values | {"limit": limit}


@dataclass(frozen=True, slots=True)
class EventReader:
    """Reads the event log; every method raises ``DatabaseAway``."""

    database: Database

    async def states(self) -> dict[str, dict[str, Any]]:
        """Return what was last recorded of every subject."""

        async def read(connection: Connection) -> dict[str, dict[str, Any]]:
            cursor = await connection.execute("SELECT subject, state FROM event_states")
            return dict(await cursor.fetchall())

        return await self.database.run(read, _READ_SECONDS)

    async def page(self, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
        """Return events, newest first; ``wanted`` may have kind, subject, since, before with before_id."""
        query, values = page_query(wanted, limit)

        async def read(connection: Connection) -> list[dict[str, Any]]:
            async with connection.cursor(row_factory=dict_row) as cursor:
                return await (await cursor.execute(query, values)).fetchall()

        return await self.database.ask(read)
