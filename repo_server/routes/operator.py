"""What an operator can see of devices: which there are, one of them, and what it would be offered (promise 3)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from repo_server.answers import reason_entry
from repo_server.core.errors import DeviceIdInvalid, VersionInvalid
from repo_server.core.identity import normalise_device_id
from repo_server.core.model import Arch, Channel, Device, Installed, Os, Platform
from repo_server.core.offer import decide
from repo_server.core.version import Version
from repo_server.routes.context import Context, RecordsUnavailable
from repo_server.telemetry.happenings import EventKind
from repo_server.views import Explanation, OfferEntry
from repo_server.web.http import Call, HttpError, not_ready, require_reading
from repo_server.web.query import Query, invalid, read_query

DEVICES = "/v1/devices"
VERSIONS = "/v1/versions"
FAILURES = "/v1/failures"
EVENTS = "/v1/events"
FILTERS = (
    "channel", "os", "arch", "health", "org_id", "site_id", "component", "version", "seen_before", "seen_after",
    "shared_id", "registered",
)  # fmt: skip
FAILURE_DAYS = 7
"""How far back failures are looked at unless ``since`` says."""
_ATTEMPTS = 20


async def devices(context: Context, call: Call) -> None:
    """List devices by id, a page at a time: ``?after=ID&limit=N`` and filters."""
    _enter_devices(context, call)
    query = read_query(call, ("after", "limit", *FILTERS))
    after, limit = query.text("after"), query.limit()
    rows = await _asked(context.devices.page(_wanted(query), None if after is None else _device_id(after), limit))
    await call.json({"devices": rows, "next": str(rows[-1]["device_id"]) if len(rows) == limit else None})


async def versions(context: Context, call: Call) -> None:
    """Count devices by channel, platform, component and version, with the filters of the list."""
    _enter_devices(context, call)
    query = read_query(call, FILTERS)
    await call.json({"versions": await _asked(context.devices.versions(_wanted(query)))})


async def failures(context: Context, call: Call) -> None:
    """Group failed attempts by signature and attempts by version: ``?since=&component=&version=&limit=``."""
    _enter_devices(context, call)
    query = read_query(call, ("since", "component", "version", "limit"))
    since = query.instant("since") or context.clock() - timedelta(days=FAILURE_DAYS)
    component, version = query.component("component"), query.version("version")
    found = await _asked(context.devices.failures(since, component, version, query.limit()))
    await call.json({"since": since, **found})


async def events(context: Context, call: Call) -> None:
    """List what happened to releases, rules and credentials, newest first: ``?kind=&subject=&since=&after=NEXT``."""
    _enter_devices(context, call)
    query = read_query(call, ("kind", "subject", "since", "after", "limit"))
    limit = query.limit()
    wanted = {
        "kind": query.member("kind", EventKind),
        "subject": query.text("subject"),
        "since": query.instant("since"),
    }
    after = query.text("after")
    if after is not None:
        wanted["before"], wanted["before_id"] = _event_place(after)
    rows = await _asked(context.devices.events(wanted, limit))
    await call.json({"events": rows, "next": _place_of(rows[-1]) if len(rows) == limit else None})


async def device(context: Context, call: Call) -> None:
    """Show one device, or with ``/explain`` what it would be offered now and why."""
    _enter_devices(context, call)
    rest = call.scope["path"].removeprefix(f"{DEVICES}/")
    text, slash, verb = rest.partition("/")
    if not text or (slash and verb != "explain"):
        raise HttpError(404, "not_found", "there is no such endpoint")
    attempts = read_query(call, () if slash else ("limit",)).limit(_ATTEMPTS)
    row = await _asked(context.devices.get(_device_id(text), attempts))
    if row is None:
        raise HttpError(404, "unknown_device", f"no device {text!r:.80} has checked in")
    if not slash:
        await call.json(row)
        return
    if not context.live.ready:
        raise not_ready()
    decision = decide(context.live.current.catalogue, _device(row), context.clock())
    await call.json(
        Explanation(
            device_id=row["device_id"],
            channel=decision.channel.channel,
            channel_source=decision.channel.source,
            offers=tuple(
                OfferEntry(offer.release.component, offer.release.version.text, offer.action)
                for offer in decision.offers
            ),
            reasons=tuple(reason_entry(reason) for reason in decision.reasons),
        )
    )


def _wanted(query: Query) -> dict[str, Any]:
    """Return the filters that are given."""
    if query.text("version") is not None and query.text("component") is None:
        raise invalid("version", "of which component? give component as well")
    found = {
        "channel": query.member("channel", Channel),
        "os": query.member("os", Os),
        "arch": query.member("arch", Arch),
        "org_id": query.uuid("org_id"),
        "component": query.component("component"),
        "version": query.version("version"),
        "seen_before": query.instant("seen_before"),
        "seen_after": query.instant("seen_after"),
        "shared_id": query.flag("shared_id"),
        "registered": query.flag("registered"),
        **{name: query.text(name) for name in ("health", "site_id")},
    }
    return {name: value for name, value in found.items() if value is not None}


def _place_of(event: Mapping[str, Any]) -> str:
    """Return what ``after`` is for the events behind one; with Z, for a plus in a query is a blank."""
    return f"{event['event_id']}@{event['occurred_at'].astimezone(UTC).isoformat().replace('+00:00', 'Z')}"


def _event_place(text: str) -> tuple[datetime, str]:
    identifier, _, at = text.partition("@")
    try:
        instant, event = datetime.fromisoformat(at), uuid.UUID(identifier)
        if instant.tzinfo is not None:
            return instant.astimezone(UTC), str(event)
    except (ValueError, OverflowError):
        pass
    raise invalid("after", f"{text!r:.80} is not what `next` of a page before was")


def _enter_devices(context: Context, call: Call) -> None:
    require_reading(call)
    context.guard.operator(call)


async def _asked(answer: Any) -> Any:
    try:
        return await answer
    except RecordsUnavailable as error:
        message = f"the database does not answer: {error}"
        raise HttpError(503, "database_unavailable", message, {"retry-after": "10"}) from None


def _device_id(text: str) -> str:
    try:
        return normalise_device_id(text)
    except DeviceIdInvalid as error:
        raise HttpError(422, error.code, error.message) from None


def _device(row: dict[str, Any]) -> Device:
    """Make the core's device from what the database remembers of its last check-in."""
    try:
        platform = Platform(Os(row["os_type"]), Arch(row["cpu_architecture"]))
        channel = Channel(row["reported_channel"]) if row.get("reported_channel") else None
    except ValueError:
        raise HttpError(
            409, "never_checked_in", "the device has reported records but never asked for updates"
        ) from None
    installed = Device(platform, tuple(_installed(row.get("components") or [])), channel, str(row["device_id"]))
    return replace(installed, org_id=_lower(row.get("org_id")), site_id=_lower(row.get("site_id")))


def _lower(value: Any) -> str | None:
    return None if value is None else str(value).strip().lower() or None


def _installed(components: list[dict[str, str]]) -> Iterable[Installed]:
    for item in components:
        try:
            yield Installed(item["name"], Version(item["version"]))
        except VersionInvalid:
            yield Installed(item["name"], None)
