"""What a check-in makes of a device's row, as SQL: one statement for a whole batch (design §7, §9).

Two machines under one id are told by what goes back and forth: a check-in whose machine (or set of versions) is not
that of the check-in before but of the one before that is a *return*. An update, a rename or a new address is none.
Three returns within a day, which is A B A B A, are evidence (``shared_id_at``), and are forgotten after a week without.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from repo_server.core.channels import AssignedChannel
from repo_server.core.wire import CheckRequest, ComponentState

IDENTITY_ATTRIBUTES = ("hostname", "machine", "machine_id", "serial_number", "smbios_uuid")
"""Attributes that say which machine it is (``machine``: our agent's own fingerprint); others may change at any time."""
RETURNS = 3
_WINDOW = "interval '1 day'"
_FORGOTTEN = "interval '7 days'"
_SEEN_LENGTH = 400

_COLUMNS = {
    "device_id": ("uuid", "device_id"),
    "org_id": ("uuid", "org_id"),
    "site_id": ("text", "left(site_id, 128)"),
    "os_type": ("text", "left(os_type, 50)"),
    "cpu_architecture": ("text", "left(cpu_architecture, 50)"),
    "channel": ("text", "channel"),
    "channel_source": ("text", "channel_source"),
    "reported_channel": ("text", "left(reported_channel, 20)"),
    "agent_service_version": ("text", "left(agent_service_version, 50)"),
    "agent_ui_version": ("text", "left(agent_ui_version, 50)"),
    "agent_probe_version": ("text", "left(agent_probe_version, 50)"),
    "agent_updater_version": ("text", "left(agent_updater_version, 50)"),
    "components": ("jsonb", "components"),
    "attributes": ("jsonb", "attributes"),
    "agent_health_status": ("text", "left(agent_health_status, 20)"),
    "agent_health_details": ("text", "agent_health_details"),
    "agent_last_health_check": ("timestamptz", "agent_last_health_check"),
    "last_agent_checkin": ("timestamptz", "last_agent_checkin"),
    "previous_ids": ("uuid[]", "previous_ids"),
    "seen_machine": ("text", "seen_machine"),
    "seen_versions": ("text", "seen_versions"),
}
"""Column → its type on the way there, and what is written."""
_KEPT = {
    "org_id", "site_id", "channel", "channel_source", "attributes",
    "agent_health_status", "agent_health_details", "agent_last_health_check",
}  # fmt: skip
"""What a check-in need not say; then the last known value stays."""
_DAY = "(last_agent_checkin AT TIME ZONE 'UTC')::date"

# One JSON document instead of an array per column: making it costs the event loop a quarter as much (design §9).
_BATCH = (
    f"json_to_recordset(%(batch)s::json) AS t ({', '.join(f'{name} {kind}' for name, (kind, _) in _COLUMNS.items())})"
)
_NAMES = f"name, device_type, last_seen_day, {', '.join(_COLUMNS)}"
_VALUES = f"device_id::text, 'endpoint', {_DAY}, {', '.join(value for _, value in _COLUMNS.values())}"


def _utc(column: str) -> str:
    """Return an instant to reckon with: without a time zone that is immutable, which distributed databases ask for."""
    return f"({column} AT TIME ZONE 'UTC')"


def _returned(new: str) -> str:
    return " OR ".join(
        f"({new}.{column} <> d.{column} AND {new}.{column} = d.{column}_before)"
        for column in ("seen_machine", "seen_versions")
    )


def _set(new: str, keep: frozenset[str] = frozenset()) -> str:
    """Return the assignments that take a row ``d`` to what the check-in ``new`` says, but for columns to keep."""
    at = f"{new}.last_agent_checkin"
    recent = f"{_utc('d.seen_returns_since')} > {_utc(at)} - {_WINDOW}"
    returned = _returned(new)
    assigned = {
        name: f"coalesce({new}.{name}, d.{name})" if name in _KEPT else f"{new}.{name}"
        for name in _COLUMNS
        if name not in {"device_id", "previous_ids", *keep}
    }
    assigned |= {
        "updated_at": at,
        "last_seen_day": f"({at} AT TIME ZONE 'UTC')::date",
        "previous_ids": f"coalesce(d.previous_ids, {new}.previous_ids)",
        "seen_returns": f"CASE WHEN {returned} THEN CASE WHEN {recent} THEN d.seen_returns + 1 ELSE 1 END"
        " ELSE d.seen_returns END",
        "seen_returns_since": f"CASE WHEN ({returned}) AND ({recent}) IS NOT TRUE THEN {at}"
        " ELSE d.seen_returns_since END",
        "shared_id_at": f"CASE WHEN ({returned}) AND {recent} AND d.seen_returns + 1 >= {RETURNS} THEN {at}"
        f" WHEN {_utc('d.shared_id_at')} < {_utc(at)} - {_FORGOTTEN} THEN NULL ELSE d.shared_id_at END",
    }
    for column in ("seen_machine", "seen_versions"):
        changed = f"{new}.{column} <> d.{column}"
        assigned[f"{column}_before"] = f"CASE WHEN {changed} THEN d.{column} ELSE d.{column}_before END"
    return ", ".join(f"{name} = {value}" for name, value in assigned.items())


def _in_order(new: str) -> str:
    """Return the condition that a check-in is not older than what is known.

    Another server may have been quicker. What is an hour ahead is no check-in but a clock that was wrong.
    """
    known, now = f"{_utc('d.last_agent_checkin')}", f"{_utc(f'{new}.last_agent_checkin')}"
    return f"({known} > {now} AND {known} < {now} + interval '1 hour') IS NOT TRUE"


def _upsert(table: str, which: str = "true") -> str:
    return f"""
    INSERT INTO {table} AS d ({_NAMES})
    SELECT {_VALUES} FROM {_BATCH} WHERE {which} ORDER BY t.device_id
    ON CONFLICT (device_id) DO UPDATE SET {_set("excluded")} WHERE {_in_order("excluded")}
    """  # noqa: S608 -- built from the constants above


# Each statement writes to one table: a distributed database does not take those that write to several.
UPSERT = _upsert("devices")
"""For our own ``devices``."""
BESIDE = _upsert("unregistered_devices", "NOT t.device_id = ANY(%(known)s::uuid[])")
"""For devices that ``devices`` does not know, or refuses."""
UPDATE = f"""
UPDATE devices AS d SET {_set("s", frozenset({"org_id"}))} FROM (
    SELECT {", ".join(f"{value} AS {name}" for name, (_, value) in _COLUMNS.items())} FROM {_BATCH}
) AS s WHERE d.device_id = s.device_id AND {_in_order("s")}
"""  # noqa: S608 -- built from the constants above
"""For the wider ``devices`` of CommandIT, which decides the organisation: rows that are there."""
KNOWN = "SELECT device_id FROM devices WHERE device_id = ANY(%(ids)s::uuid[])"
TAKEN_UP = "DELETE FROM unregistered_devices WHERE device_id = ANY(%(known)s::uuid[])"
SHARED = """
SELECT device_id FROM devices WHERE shared_id_at IS NOT NULL AND shared_id_at >= %(since)s
UNION ALL SELECT device_id FROM unregistered_devices WHERE shared_id_at IS NOT NULL AND shared_id_at >= %(since)s
LIMIT 1000
"""
"""Those that went back and forth once more, by an index on such ids only."""


class Row(msgspec.Struct, omit_defaults=True, gc=False):
    """One device in the document; the names are those of the columns."""

    device_id: str
    org_id: str | None
    site_id: str | None
    os_type: str
    cpu_architecture: str
    channel: str | None
    channel_source: str | None
    reported_channel: str
    agent_service_version: str | None
    agent_ui_version: str | None
    agent_probe_version: str | None
    agent_updater_version: str
    components: tuple[ComponentState, ...]
    attributes: dict[str, Any] | None
    agent_health_status: str | None
    agent_health_details: str | None
    agent_last_health_check: datetime | None
    last_agent_checkin: datetime
    seen_machine: str
    seen_versions: str
    previous_ids: tuple[str, ...] | None


def row_of(
    device_id: str, previous_ids: Sequence[str], request: CheckRequest, at: datetime, channel: AssignedChannel
) -> Row:
    """Return what is written of a check-in."""
    service, ui, probe, seen_versions = _versions(request.components)
    org_id, attributes = _organisation(request)
    health = request.health
    return Row(
        device_id,
        org_id,
        request.site_id,
        request.os,
        request.arch,
        channel.channel,
        channel.source,
        request.release_channel,
        service,
        ui,
        probe,
        request.updater_version,
        request.components,
        attributes,
        None if health is None else health.status,
        None if health is None else health.details,
        None if health is None else at,
        at,
        _machine(request),
        seen_versions,
        tuple(previous_ids) or None,
    )


# A fleet has few different sets of versions and few organisations, and a row of each check-in.
@lru_cache(maxsize=8192)
def _versions(components: tuple[ComponentState, ...]) -> tuple[str | None, str | None, str | None, str]:
    """Return the versions that have columns of their own, and all of them in one text."""
    versions = {component.name: component.version for component in components}
    # "" is a component that the device wants and has not: no version.
    service, ui, probe = (versions.get(name) or None for name in ("service", "ui", "probe"))
    seen = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))[:_SEEN_LENGTH]
    return service, ui, probe, seen


def _machine(request: CheckRequest) -> str:
    """Return which machine this is, as far as it says so."""
    said = request.attributes
    marks = [f"{name}={said[name]!s:.80}" for name in IDENTITY_ATTRIBUTES if name in said] if said else []
    return ", ".join((f"{request.os}-{request.arch}", *marks))[:_SEEN_LENGTH]


def _organisation(request: CheckRequest) -> tuple[str | None, dict[str, Any] | None]:
    """Return ``org_id``, a UUID as in the source schema, and the attributes, where one of another form is kept."""
    if not request.org_id:
        return None, request.attributes
    org_id = _uuid_of(request.org_id)
    if org_id is not None:
        return org_id, request.attributes
    return None, {**(request.attributes or {}), "org_id": request.org_id}


@lru_cache(maxsize=8192)
def _uuid_of(text: str) -> str | None:
    try:
        return str(uuid.UUID(text.strip()))
    except ValueError:
        return None
