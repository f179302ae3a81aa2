"""Options of the verbs that ask a server, and what they mean as a query."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from repo_server.core.errors import DeviceIdInvalid
from repo_server.core.identity import normalise_device_id
from repo_server.core.model import COMPONENT_PATTERN, Arch, Channel, Os
from repo_server.core.version import Version
from repotool.cli import options

_COMPONENT = re.compile(COMPONENT_PATTERN)
_AGO = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class InstantType(click.ParamType[datetime]):
    """A time with its zone, or how long ago: ``30d``."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse, or say what is expected."""
        if isinstance(value, datetime):
            return value
        found = _AGO.fullmatch(value)
        try:
            if found:
                return options.now() - timedelta(**{_UNITS[found[2]]: int(found[1])})
            instant = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            instant = None
        if instant is None or instant.tzinfo is None:
            self.fail(f"{value!r} is neither a time with its zone (2026-11-21T18:00:00Z) nor an age (30d)", param, ctx)
        return instant


class ComponentType(click.ParamType[str]):
    """A component's name (L4)."""

    name = "component"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check, or say what is expected."""
        if not _COMPONENT.fullmatch(value):
            self.fail(f"{value!r} is not a component; expected a name like service, in lower case", param, ctx)
        return str(value)


class HeldType(click.ParamType[tuple[str, Version | None]]):
    """A component, and with ``=`` the version of it: ``service=1.2.3``."""

    name = "component"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Version | None]:
        """Take it apart, or say what is expected."""
        if not isinstance(value, str):
            return value[0], value[1]
        name, equals, version = value.partition("=")
        return (
            component_type.convert(name, param, ctx),
            options.VersionType().convert(version, param, ctx) if equals else None,
        )


class DeviceIdType(click.ParamType[str]):
    """A device's id in any spelling (L53)."""

    name = "device_id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Normalise, or say what is expected."""
        try:
            return normalise_device_id(value)
        except DeviceIdInvalid as error:
            self.fail(error.message, param, ctx)


class WordsType(click.ParamType[str]):
    """A text that is not empty."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check, or say what is expected."""
        if not value:
            self.fail("it is empty; give a value, or leave the option out", param, ctx)
        return str(value)


instant_type = InstantType()
component_type = ComponentType()
device_id_type = DeviceIdType()
words_type = WordsType()
_Command = TypeVar("_Command", bound=Callable[..., Any])


def asking(command: _Command) -> _Command:
    """Add the options that name a server."""
    for option in (
        click.option("--ca-file", type=options.path_type, metavar="FILE", help="Certificates (PEM) that are trusted."),
        click.option(
            "--token-file", type=options.path_type, envvar="REPOTOOL_TOKEN_FILE", metavar="FILE",
            help="File with an operator's token, mode 0600 (or REPOTOOL_TOKEN_FILE).",
        ),
        click.option("--server", "url", envvar="REPOTOOL_SERVER", metavar="URL", help="Or REPOTOOL_SERVER."),
        options.json_option,
    ):  # fmt: skip
        command = option(command)
    return command


def filtering(command: _Command) -> _Command:
    """Add the options that choose devices."""
    for option in (
        click.option("--unregistered", is_flag=True, help="Only those that CommandIT's own table does not have."),
        click.option("--shared-id", is_flag=True, help="Only ids that two machines were seen to use."),
        click.option(
            "--seen-after", type=instant_type, metavar="WHEN", help="Only those that asked since: 1h, a time."
        ),
        click.option(
            "--seen-before", type=instant_type, metavar="WHEN", help="Only those not seen since: 30d, a time."
        ),
        click.option("--site", "site_id", type=words_type, help="Only of this site."),
        click.option("--org", "org_id", type=click.UUID, help="Only of this organisation."),
        click.option("--health", type=words_type, help="Only with this health."),
        click.option(
            "--component", type=HeldType(), metavar="NAME[=VERSION]", help="Only with this component, at this version."
        ),
        click.option("--arch", type=click.Choice([str(item) for item in Arch]), help="Only this architecture."),
        click.option("--os", type=click.Choice([str(item) for item in Os]), help="Only this system."),
        click.option("--channel", type=click.Choice([str(item) for item in Channel]), help="Only on this channel."),
    ):
        command = option(command)
    return command


def wanted(filters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a query for devices."""
    component, version = filters["component"] or (None, None)
    same = {name: filters[name] for name in ("channel", "os", "arch", "health", "org_id", "site_id")}
    return same | {
        "component": component,
        "version": version,
        "seen_before": iso(filters["seen_before"]),
        "seen_after": iso(filters["seen_after"]),
        "shared_id": True if filters["shared_id"] else None,
        "registered": False if filters["unregistered"] else None,
    }


def iso(instant: datetime | None) -> str | None:
    """Return a time as a query's parameter."""
    return None if instant is None else instant.isoformat()
