"""The verbs that only look: status, verify, selfcheck."""

from __future__ import annotations

import json
import os
from datetime import datetime

import click

from agent.bundle import own_version
from agent.cli.command import command
from agent.cli.endpoints import for_repair, must_own
from agent.cli.words import say
from agent.cli.world import the_world
from agent.codes import EXIT_DONE, EXIT_FAILED, Code
from agent.config import load_config
from agent.endpoint import put_together
from agent.errors import AgentError
from agent.lock import only_one
from agent.paths import Paths
from agent.selfcheck import selfcheck as check_myself
from agent.status import Status, load_status
from agent.verify import verify as verify_components


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print status.json.")
@command
def status(paths: Paths, as_json: bool) -> int:
    """Say what is installed, what happened last, and what comes next."""
    if not os.access(paths.state, os.R_OK | os.X_OK) and paths.state.exists():
        raise AgentError(Code.PERMISSION, f"cannot read {paths.state}: it is private; run this as root")
    loaded = load_status(paths.status)
    if loaded.damage is not None:
        click.echo(f"{Code.STATE_DAMAGED.name}: {loaded.damage}", err=True)
    if as_json:
        click.echo(json.dumps(loaded.status.to_json(), indent=2))
    else:
        for line in _in_words(loaded.status):
            say(line)
    return EXIT_DONE


def _in_words(state: Status) -> list[str]:
    """Return three lines: what is installed, what happened last, what comes next and when."""
    installed = ", ".join(f"{one.name} {one.version}" for one in state.installed_components) or "nothing"
    checked = f"checked {_at(state.last_check_time) or 'never'}"
    if state.last_error_code is Code.OK:
        said = state.last_operation_status if state.installed_components else "nothing to install"
        said = "none" if state.last_check_time is None else said
        last = f"{said}, {checked}" + (f"; left out: {state.last_error_message}" if state.last_error_message else "")
    else:
        code = state.last_error_code
        last = f"{state.last_operation_status}, {checked}; {code.name}: {state.last_error_message}. {code.action}"
    skipped = "".join(f"; {one.name} {one.version} is skipped" for one in state.quarantined)
    return [
        f"Installed: {installed} (channel {state.assigned_channel or 'not known yet'})",
        f"Last: {last}",
        f"Next: check at {_at(state.next_check_time) or 'the next start'}{skipped}",
    ]


def _at(moment: datetime | None) -> str | None:
    """Return a time as this machine's clocks show it, with its zone."""
    if moment is None:
        return None
    try:
        return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %z}"
    except (OverflowError, ValueError):
        # At the edges of the calendar there is no such time here.
        return moment.isoformat()


@click.command()
@click.argument("components", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@command
def verify(paths: Paths, components: tuple[str, ...], as_json: bool) -> int:
    """Compare installed files with the lists of their packages (all components, if none is named)."""
    endpoint = for_repair(paths)
    with only_one(paths.lock):
        verified = verify_components(endpoint, components)
    same = all(one.same for one in verified)
    if as_json:
        click.echo(json.dumps({"same": same, "components": [one.to_json() for one in verified]}, indent=2))
    else:
        for line in [line for one in verified for line in one.in_words()] or ["Nothing is installed."]:
            say(line)
    return EXIT_DONE if same else EXIT_FAILED


@click.command()
@click.option("--offline", is_flag=True, help="Do not ask the server.")
@command
def selfcheck(paths: Paths, offline: bool) -> int:
    """Check that this agent can do its work on this machine; changes nothing. A new version is asked this first."""
    must_own(paths)
    config = load_config(paths.config, os.environ, {})
    checked = check_myself(put_together(paths, config, the_world()), offline=offline)
    click.echo(f"commandit-updater {own_version()} is fit: {checked}")
    return EXIT_DONE


COMMANDS = (status, verify, selfcheck)
