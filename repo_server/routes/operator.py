"""What an operator can see of devices: which there are, one of them, and what it would be offered (promise 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from repo_server.answers import reason_entry
from repo_server.core.errors import DeviceIdInvalid, VersionInvalid
from repo_server.core.identity import normalise_device_id
from repo_server.core.model import Arch, Channel, Device, Installed, Os, Platform
from repo_server.core.offer import decide
from repo_server.core.version import Version
from repo_server.http import Call, HttpError, method_not_allowed, not_ready
from repo_server.query import read_query
from repo_server.routes.context import Context, RecordsUnavailable
from repo_server.views import Explanation, OfferEntry

DEVICES = "/v1/devices"


async def devices(context: Context, call: Call) -> None:
    """List devices by id, a page at a time: ``?after=ID&limit=N``."""
    _enter_devices(context, call)
    query = read_query(call, ("after", "limit"))
    after, limit = query.text("after"), query.limit()
    rows = await _asked(context.devices.page(None if after is None else _device_id(after), limit))
    await call.json({"devices": rows, "next": str(rows[-1]["device_id"]) if len(rows) == limit else None})


async def device(context: Context, call: Call) -> None:
    """Show one device, or with ``/explain`` what it would be offered now and why."""
    _enter_devices(context, call)
    rest = call.scope["path"].removeprefix(f"{DEVICES}/")
    text, slash, verb = rest.partition("/")
    if slash and verb != "explain":
        raise HttpError(404, "not_found", "there is no such endpoint")
    row = await _asked(context.devices.get(_device_id(text)))
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


def _enter_devices(context: Context, call: Call) -> None:
    if call.method not in {"GET", "HEAD"}:
        raise method_not_allowed("GET, HEAD")
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
