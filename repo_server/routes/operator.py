"""What an operator can see: the catalogue, what is not offered and why, and the devices (promise 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import parse_qs

import msgspec

from repo_server.answers import download_url, reason_entry
from repo_server.auth import Role
from repo_server.core.errors import DeviceIdInvalid, VersionInvalid
from repo_server.core.identity import normalise_device_id
from repo_server.core.model import Arch, Channel, Device, FileState, Installed, Os, Platform, Problem, Release
from repo_server.core.offer import decide
from repo_server.core.version import Version
from repo_server.http import Call, HttpError, method_not_allowed, not_ready
from repo_server.live import Snapshot
from repo_server.routes.context import Context, RecordsUnavailable

PROBLEMS = "/v1/problems"
CATALOGUE = "/v1/packages"
DEVICES = "/v1/devices"
RESCAN = "/v1/rescan"
PAGE = 100
MAX_PAGE = 1000


class PackageEntry(msgspec.Struct, frozen=True):
    """A release in the field names of the source schema (UpdatePackages)."""

    component_name: str
    version: str
    release_channel: str
    target_os: str
    target_arch: str
    download_url: str
    file_hash_sha256: str
    signature_base64: str | None
    """``None``: a recalled release whose file is gone."""
    release_notes_url: str | None
    dependencies: dict[str, str]
    """Component → ``>=`` and its lowest version."""
    published_at: Any
    is_active: bool
    """Not recalled."""
    path: str
    size: int
    title: str | None
    blocked_reason: str | None
    rollout: bool
    """Whether a ramp is in force."""


async def problems(context: Context, call: Call) -> None:
    """List every file that is not offered, with its reason, and what is wrong with the server itself."""
    snapshot = _enter(context, call)
    found = snapshot.result.problems
    await call.json(
        {
            "problems": [_problem(item) for item in found if item.state is FileState.PROBLEM],
            "pending": [_problem(item) for item in found if item.state is FileState.PENDING],
            "server": [asdict(item) for item in context.conditions.look(context.clock())],
            "catalogue": snapshot.generation,
        }
    )


async def catalogue(context: Context, call: Call) -> None:
    """List the releases."""
    snapshot = _enter(context, call)
    base = call.base(context.base_url)
    # Ten thousand releases take long enough to make others wait.
    body = await asyncio.to_thread(_catalogue, snapshot, base)
    await call.answer(200, body, ((b"content-type", b"application/json"), (b"cache-control", b"no-store")))


async def rescan(context: Context, call: Call) -> None:
    """Look at the whole tree soon; ``catalogue`` in the answer is the one before that look."""
    if call.method != "POST":
        raise method_not_allowed("POST")
    context.guard.operator(call, Role.OPERATE)
    context.rescan(None)
    await call.json({"catalogue": context.live.current.generation if context.live.ready else 0}, 202)


async def devices(context: Context, call: Call) -> None:
    """List devices by id, a page at a time: ``?after=ID&limit=N``."""
    _enter_devices(context, call)
    query = parse_qs(call.scope["query_string"].decode("latin-1"))
    after = query.get("after", [None])[0]
    try:
        limit = int(query.get("limit", [str(PAGE)])[0])
    except ValueError:
        limit = 0
    if not 1 <= limit <= MAX_PAGE:
        raise HttpError(422, "invalid_limit", f"limit must be a number from 1 to {MAX_PAGE}")
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
        {
            "device_id": row["device_id"],
            "channel": decision.channel.channel,
            "channel_source": decision.channel.source,
            "offers": [
                {"name": offer.release.component, "version": offer.release.version.text, "action": offer.action}
                for offer in decision.offers
            ],
            "reasons": [reason_entry(reason) for reason in decision.reasons],
        }
    )


def _enter(context: Context, call: Call) -> Snapshot:
    _enter_devices(context, call)
    if not context.live.ready:
        raise not_ready()
    return context.live.current


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


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "path": problem.path,
        "code": problem.code,
        "message": problem.message,
        "since": problem.since,
        "state": problem.state,
    }


def _catalogue(snapshot: Snapshot, base: str) -> bytes:
    releases = sorted(snapshot.catalogue, key=lambda item: (item.component, item.platform, item.version))
    entries = [_entry(release, base) for release in releases]
    return msgspec.json.encode({"packages": entries, "catalogue": snapshot.generation})


def _entry(release: Release, base: str) -> PackageEntry:
    return PackageEntry(
        component_name=release.component,
        version=release.version.text,
        release_channel=release.channel,
        target_os=release.platform.os,
        target_arch=release.platform.arch,
        download_url=download_url(release, base),
        file_hash_sha256=release.sha256,
        signature_base64=release.signatures[0].signature if release.signatures else None,
        release_notes_url=release.meta.release_notes_url,
        dependencies={item.name: f">={item.min_version}" for item in release.requires},
        published_at=release.meta.published_at,
        is_active=release.block is None,
        path=release.path,
        size=release.size,
        title=release.meta.title,
        blocked_reason=None if release.block is None else release.block.reason,
        rollout=release.rollout is not None,
    )
