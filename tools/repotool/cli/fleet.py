"""``devices`` and ``events``: what the server knows of the fleet, and of what happened (design §7, promise 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from repo_server.core.version import Version
from repotool.cli import asking, options, show
from repotool.sentences import count
from repotool.server import open_server
from repotool.tables import Table


@click.group()
def devices() -> None:
    """Show the devices that a server knows: list, show, versions, failures."""


@devices.command("list")
@asking.filtering
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="How many; 0: all.")
@asking.asking
def list_devices(*, limit: int, url: str | None, token_file: Path | None, ca_file: Path | None, as_json: bool,
                 **filters: Any) -> None:  # fmt: skip
    """List devices by id."""
    server = open_server(url, token_file, ca_file)
    # One more than asked for tells whether there are more.
    rows = list(server.pages("/v1/devices", "devices", limit + 1 if limit else None, **asking.wanted(filters)))
    more = bool(limit) and len(rows) > limit
    rows = rows[:limit] if limit else rows
    if as_json:
        show.json({"devices": rows, "more": more})
        return
    show.table(Table(("device", "platform", "channel", "versions", "health", "last seen"), [_row(row) for row in rows]))
    show.say(f"{count(len(rows), 'device')}{'; there are more, see --limit' if more else ''}")


@devices.command("show")
@click.argument("device_id", type=asking.device_id_type)
@click.option("--attempts", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many of the last.")
@asking.asking
def show_device(*, device_id: str, attempts: int, url: str | None, token_file: Path | None, ca_file: Path | None,
                as_json: bool) -> None:  # fmt: skip
    """Show a device, what it would be offered now and why, and its last attempts."""
    server = open_server(url, token_file, ca_file)
    row = server.get(f"/v1/devices/{device_id}", limit=attempts)
    explained = server.get(f"/v1/devices/{device_id}/explain") if row["os_type"] is not None else None
    if as_json:
        show.json({"device": row, "explain": explained})
        return
    for name, value in _facts(row):
        show.say(f"{name + ':':<14}{value}")
    if explained is not None:
        show.say("")
        show.table(
            Table(("component", "reason", ""), [(r["name"], r["code"], r["detail"]) for r in explained["reasons"]])
        )
    show.say("")
    columns = ("attempt", "component", "from", "to", "status", "error")
    show.table(Table(columns, [_attempt(item) for item in row["attempts"]]))


@devices.command("versions")
@asking.filtering
@asking.asking
def versions(*, url: str | None, token_file: Path | None, ca_file: Path | None, as_json: bool, **filters: Any) -> None:
    """Count devices by channel, platform, component and version."""
    facts = open_server(url, token_file, ca_file).get("/v1/versions", **asking.wanted(filters))
    if as_json:
        show.json(facts)
        return
    rows = [
        (item["component"], item["version"], item["channel"] or "", _platform(item), str(item["devices"]))
        for item in facts["versions"]
    ]
    columns = ("component", "version", "channel", "platform", "devices")
    show.table(Table(columns, rows, frozenset({"devices"})))


@devices.command("failures")
@click.option("--since", type=asking.instant_type, metavar="WHEN", help="As a time or an age.  [default: 7d]")
@click.option("--component", type=asking.component_type, help="Only this one.")
@click.option("--version", type=options.VersionType(), help="Only this requested version.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many signatures.")
@asking.asking
def failures(*, since: datetime | None, component: str | None, version: Version | None, limit: int, url: str | None,
             token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:  # fmt: skip
    """Group failed updates by what they have in common, and attempts by version."""
    server = open_server(url, token_file, ca_file)
    facts = server.get("/v1/failures", since=asking.iso(since), component=component, version=version, limit=limit)
    if as_json:
        show.json(facts)
        return
    rows = [
        (
            *(item[name] or "" for name in ("component", "error_code", "pattern")),
            *(str(item[name]) for name in ("devices", "attempts")),
            " ".join(item["versions"]),
        )
        for item in facts["signatures"]
    ]
    columns = ("component", "error", "message", "devices", "attempts", "versions")
    show.table(Table(columns, rows, frozenset({"devices", "attempts"})))
    show.say("")
    numbers = ("devices", "devices_failed", "attempts", "succeeded", "failed")
    outcomes = [(i["component"], i["version"], *(str(i[name]) for name in numbers)) for i in facts["versions"]]
    show.table(Table(("component", "version", *numbers), outcomes, frozenset(numbers)))


@click.command("events")
@click.option("--kind", type=asking.words_type, help="Only these: publish, promote, recall, halt, problem_appeared …")
@click.option("--subject", type=asking.words_type, help="Only about this.")
@click.option("--since", type=asking.instant_type, metavar="WHEN", help="As a time or an age.")
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="How many; 0: all.")
@asking.asking
def events(*, kind: str | None, subject: str | None, since: datetime | None, limit: int, url: str | None,
           token_file: Path | None, ca_file: Path | None, as_json: bool) -> None:  # fmt: skip
    """Show what happened to releases, rules and credentials, newest first, and who did it."""
    server = open_server(url, token_file, ca_file)
    found = list(
        server.pages("/v1/events", "events", limit or None, kind=kind, subject=subject, since=asking.iso(since))
    )
    if as_json:
        show.json({"events": found})
        return
    rows = [
        (_time(item["occurred_at"]), item["kind"], item["subject"] or "", item["actor"] or "", item["source"] or "",
         _details(item["details"] or {})) for item in found
    ]  # fmt: skip
    show.table(Table(("when", "what", "subject", "who", "where", "details"), rows))


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    marks = "" if row["shared_id_at"] is None else "  SHARED ID"
    return (
        row["device_id"], _platform(row), row["channel"] or "", _versions(row),
        (row["agent_health_status"] or "") + marks, _time(row["last_agent_checkin"]),
    )  # fmt: skip


def _facts(row: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "device", row["device_id"]
    yield "platform", _platform(row)
    yield "channel", f"{row['channel'] or 'unknown'} (decided by: {row['channel_source'] or 'unknown'})"
    yield "versions", _versions(row)
    yield "health", " ".join(filter(None, (row["agent_health_status"], row["agent_health_details"]))) or "not reported"
    yield "last seen", _time(row["last_agent_checkin"]) or "never"
    if row["org_id"] or row["site_id"]:
        yield "belongs to", " / ".join(filter(None, (row["org_id"], row["site_id"])))
    if row["previous_ids"]:
        yield "former ids", ", ".join(row["previous_ids"])
    if not row["registered"]:
        yield "registered", "no: CommandIT's own table does not have this device"
    if row["shared_id_at"]:
        machines = " and ".join(str(item) for item in row["seen_machines"])
        yield "SHARED ID", f"two machines use this id, last at {_time(row['shared_id_at'])}: {machines}"


def _attempt(item: dict[str, Any]) -> tuple[str, ...]:
    error = ": ".join(filter(None, (item["error_code"], item["error_message"])))
    return (
        _time(item["attempt_timestamp"]), item["component_name"], item["current_version"] or "",
        item["requested_version"], item["status"], error,
    )  # fmt: skip


def _platform(row: dict[str, Any]) -> str:
    return "-".join(filter(None, (row["os_type"], row["cpu_architecture"]))) or "unknown"


def _versions(row: dict[str, Any]) -> str:
    held = [f"{item['name']} {item['version']}" for item in row["components"] or [] if item["version"]]
    return ", ".join([*held, *([f"updater {row['agent_updater_version']}"] if row["agent_updater_version"] else [])])


def _details(details: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in details.items() if key not in {"server", "owner_uid", "sha256"})


def _time(text: str | None) -> str:
    """Return a time to the second, as the server wrote it."""
    return re.sub(r"\.\d+(?=Z|[+-]|$)", "", text) if text else ""


COMMANDS = (devices, events)
