"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from repo_server.core.model import Channel


class _RootDir(click.Path):
    """A folder; an empty name, as of a shell's variable that is not set, would silently be the current one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if not str(value):
            self.fail("the name is empty; expected a folder, or no --root-dir for this machine itself", param, ctx)
        return super().convert(value, param, ctx)


ROOT_DIR = _RootDir(path_type=Path)
CHANNELS = click.Choice([str(channel) for channel in Channel])


def overrides(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that override the configuration for one run (FR-CFG-002)."""
    for option in (
        click.option("--insecure-http", is_flag=True, help="Allow http:// to other machines for this run; for tests."),
        click.option("--channel", type=CHANNELS, help="Override the configured channel for this run."),
        click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="Override the mirrors for this run."),
        click.option("--server", "servers", multiple=True, metavar="URL", help="Override the server for this run."),
    ):
        function = option(function)
    return function


def flags(
    servers: tuple[str, ...], mirrors: tuple[str, ...], channel: str | None, insecure_http: bool
) -> dict[str, Any]:
    """Return what these options override, by the configuration's keys."""
    given = {
        "update_server_url": list(servers) or None,
        "mirrors": list(mirrors) or None,
        "release_channel": channel,
        "insecure_http": insecure_http or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def patience(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--wait``."""
    return click.option(
        "--wait",
        type=click.FloatRange(0, 86_400),
        default=0.0,
        metavar="SECONDS",
        help="Wait so long for another updater that is at work, before leaving with exit code 4.",
    )(function)
