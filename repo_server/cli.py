"""``repo-server``: what an operator types (design §11). Exit codes: 0, 1 failed, 2 usage, 3 unsafe, 4 busy."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from repo_server.access.auth import CredentialsInvalid, Role
from repo_server.access.tokens import Token, TokenError, add_token, list_tokens, revoke_token
from repo_server.app import serve, wall_clock, work
from repo_server.checkconfig import Finding, check, worst
from repo_server.doubts import doubts
from repo_server.failures import FAILED, USAGE, exit_code, sentence
from repo_server.openapi import document
from repo_server.operations import API
from repo_server.servicemanager import ServiceManager
from repo_server.settings import (
    CONFIG,
    ENVIRONMENT_PREFIX,
    Settings,
    SettingsInvalid,
    Unsafe,
    check_exposure,
    check_places,
    options,
    read_settings,
    unknown_variables,
)
from repo_server.statefolder import StateError, require_state
from repo_server.store import DatabaseAway, UrlInvalid
from repo_server.store.owner import keep
from repo_server.store.source import GivenServer
from repo_server.telemetry.logs import configure
from repo_server.web.listener import StartError
from repo_server.workers.link import MainProcessGone

_CANNOT_START = (
    SettingsInvalid, Unsafe, UrlInvalid, CredentialsInvalid, StartError, StateError, OSError,
)  # fmt: skip

_log = logging.getLogger(__name__)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="commandit-updates")
def main() -> None:
    """Serve a downloads tree to agents."""


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per setting, so that none can be missing."""
    for option in reversed(options()):
        name = "--" + option.name.replace("_", "-")
        shown = "" if option.flag or option.default in {None, ()} else f"  [default: {option.default}]"
        text = f"{option.help}{shown}"
        command = (
            click.option(f"{name}/--not-{name[2:]}", option.name, default=None, help=text)
            if option.flag
            else click.option(name, option.name, default=None, metavar="VALUE", help=text, multiple=option.repeatable)
        )(command)
    return click.option(f"--{CONFIG}", CONFIG, default=None, metavar="FILE", help="TOML file with settings.")(command)


@main.command("serve", epilog=f"Every option can also be given as {ENVIRONMENT_PREFIX}<NAME>, or in the --config file.")
@_with_settings
def serve_command(**flags: object) -> None:
    """Answer agents until SIGTERM or SIGINT."""
    given = {name: value for name, value in flags.items() if value not in {None, ()}}
    manager = ServiceManager.of(os.environ, os.getpid())
    # A watchdog ends a hung server by SIGABRT; where it hung is then in the log.
    faulthandler.enable()
    try:
        settings = read_settings(given, os.environ)
        configure(settings.log_level)
        for name in unknown_variables(os.environ):
            _log.warning("the environment variable %s is not a setting and is ignored", name)
        check_exposure(settings)
        check_places(settings)
        for doubt in doubts(settings):
            _log.warning(doubt)
        _say_what_is_not_there(settings)
        ended_well = serve(settings, manager, click.echo)
    except _CANNOT_START as error:
        _end(error, exit_code(error))
    if not ended_well:
        _end("a part of the server failed; see the log above", FAILED)


@main.command("check-config")
@_with_settings
def check_config_command(**flags: object) -> None:
    """Say everything that is wrong with settings and files, without starting a server or changing anything.

    Takes the options of ``serve``. Ends with 0 if a server would start and serve; 2: wrong usage, 3: unsafe, 1: the
    rest. What may be mended meanwhile, such as a database that does not answer, is a warning.
    """
    given = {name: value for name, value in flags.items() if value not in {None, ()}}
    unknown = [
        Finding(f"the environment variable {name} is not a setting", 0) for name in unknown_variables(os.environ)
    ]
    try:
        findings = (*unknown, *check(read_settings(given, os.environ), wall_clock()))
    except SettingsInvalid as error:
        findings = (*unknown, *(Finding(problem, USAGE) for problem in error.problems))
    for finding in findings:
        click.echo(f"{'error' if finding.code else 'warning'}: {finding.message}", err=True)
    code = worst(findings)
    if code:
        raise SystemExit(code)
    click.echo("a server would start with this")


@main.command("worker", hidden=True)
@click.option("--channel", type=int, required=True)
@click.option("--number", type=int, required=True)
@click.option("--log-level", required=True, type=click.Choice(["debug", "info", "warning", "error"]))
def worker_command(channel: int, number: int, log_level: str) -> None:
    """Answer agents as one of several processes; started by the server itself."""
    configure(log_level, worker=number)
    try:
        ended_well = work(channel, number)
    except (*_CANNOT_START, MainProcessGone) as error:
        _end(error, exit_code(error))
    if not ended_well:
        _end(f"worker {number}: a part of it failed; see the log above", FAILED)


def _say_what_is_not_there(settings: Settings) -> None:
    if settings.online_key is not None:
        message = (
            f"--online-key {settings.online_key} is not used: signing TUF metadata is not in this version; "
            "the metadata in the tree is served as it is"
        )
        _log.warning(message)
        click.echo(f"note: {message}")


@main.command("migrate")
@click.option("--database-url", required=True, envvar=f"{ENVIRONMENT_PREFIX}DATABASE_URL", help="As the tables' owner.")
@click.option("--grant", metavar="ROLE", help="Let this role, which a server then uses, read and write rows.")
@click.option(
    "--log-retention-months",
    type=click.IntRange(1, 1200),
    default=next(option.default for option in options() if option.name == "log_retention_months"),
    show_default=True,
    help="As the server has it.",
)
def migrate_command(database_url: str, grant: str | None, log_retention_months: int) -> None:
    """Make and keep the tables as their owner, for servers whose role may only read and write rows.

    A server whose role owns the tables does all of this itself. Run it before a new version starts, and once a year at
    least: it makes the logs' partitions of the coming 14 months, and drops those that are older than logs are kept.
    """
    configure("warning")
    try:
        conninfo = GivenServer.parse(database_url).conninfo
        done = keep(conninfo, grant, wall_clock(), log_retention_months)
    except (UrlInvalid, DatabaseAway) as error:
        _end(error, exit_code(error))
    for line in done or ["nothing to do"]:
        click.echo(line)


@main.command("openapi")
def openapi_command() -> None:
    """Print the description of the HTTP API (OpenAPI 3.1), as /v1/openapi.json serves it."""
    click.echo(json.dumps(document(API), indent=2, ensure_ascii=False))


@main.group()
def token() -> None:
    """Manage the tokens of operators."""


_STATE = click.option(
    "--state",
    required=True,
    envvar=f"{ENVIRONMENT_PREFIX}STATE",
    type=click.Path(path_type=Path, file_okay=False),
    help="The server's state folder.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@token.command("add")
@click.argument("name")
@_STATE
@click.option(
    "--role",
    type=click.Choice([str(role) for role in Role]),
    default=str(Role.READ),
    show_default=True,
    help="read: look at everything; operate: also what changes something.",
)
@_JSON
def token_add(name: str, state: Path, role: str, as_json: bool) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    try:
        value = add_token(state, name, Role(role), wall_clock())
    except (CredentialsInvalid, TokenError, StateError, OSError) as error:
        _end(error, exit_code(error))
    click.echo(json.dumps({"name": name, "role": role, "token": value}) if as_json else value)


@token.command("list")
@_STATE
@_JSON
def token_list(state: Path, as_json: bool) -> None:
    """List the tokens' names, roles and when they were made."""
    try:
        require_state(state)
        tokens: list[Token] = list_tokens(state)
    except (CredentialsInvalid, StateError, OSError) as error:
        _end(error, exit_code(error))
    if as_json:
        shown = [{"name": item.name, "role": item.role, "created": item.created.isoformat()} for item in tokens]
        click.echo(json.dumps(shown))
        return
    for item in tokens:
        click.echo(f"{item.name}\t{item.role}\t{item.created.isoformat(timespec='seconds')}")


@token.command("revoke")
@click.argument("name")
@_STATE
def token_revoke(name: str, state: Path) -> None:
    """Make a token worthless; a running server forgets it within a second or two."""
    try:
        require_state(state)
        revoke_token(state, name)
    except (CredentialsInvalid, TokenError, StateError, OSError) as error:
        _end(error, exit_code(error))
    click.echo(f"revoked {name}")


def _end(error: object, code: int) -> NoReturn:
    click.echo(f"repo-server: {sentence(error)}", err=True)
    raise SystemExit(code)
