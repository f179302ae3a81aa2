"""The command line: reads the environment, puts an endpoint together, and says what happened (design §8, §11)."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import secrets
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

from agent.bootstrap import Provision, provision
from agent.codes import EXIT_DONE, EXIT_FAILED, Code
from agent.config import Config, load_config
from agent.cycle import Cycle
from agent.endpoint import Endpoint, World, put_together
from agent.errors import AgentError, local_failure
from agent.lock import only_one
from agent.paths import Paths
from agent.platform.detect import this_platform
from agent.platform.ownservice import RunAs
from agent.platform.spawn import become_agent
from agent.quarantine import ATTEMPTS, Quarantine, save_quarantine
from agent.recover import recover, settle
from agent.registration import register_agent
from agent.reinstall import Reinstall
from agent.removal import Purged, begin_removal, finish_removal, removal_path
from agent.result import Result, result_of
from agent.runner import Stuck
from agent.schedule import LONGEST
from agent.services import start_components, stop_components
from agent.standing import Standing
from agent.status import OperationStatus, Status, load_status
from agent.verify import verify as verify_components
from repo_server.core.model import Channel
from repo_server.core.package import ServiceKind

SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHANNELS = click.Choice([str(channel) for channel in Channel])


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock's time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock's time."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def the_world() -> World:
    """Return this machine, in real time and by real chance."""
    try:
        version = importlib.metadata.version("commandit-updates")
    except importlib.metadata.PackageNotFoundError:
        version = "0.0.0"
    return World(
        clock=SystemClock(),
        random=secrets.SystemRandom().random,
        new_id=lambda: str(uuid.uuid4()),
        platform=this_platform(),
        version=version,
        environment={"PATH": SAFE_PATH, "LANG": "C.UTF-8", "HOME": "/"},
    )


def command(function: Callable[..., int]) -> Callable[..., None]:
    """Turn what a command returns or raises into output and an exit code; accept ``--root-dir`` after the verb."""

    @click.option("--root-dir", type=click.Path(path_type=Path), help="Relocate every path below DIR.")
    @click.pass_context
    @functools.wraps(function)
    def wrapper(context: click.Context, /, root_dir: Path | None, **options: Any) -> None:
        chosen = root_dir or context.find_root().params["root_dir"]
        try:
            code = function(Paths(Path(os.path.abspath(chosen))), **options)  # noqa: PTH100 -- resolve() follows links
        except Purged:
            click.echo("An interrupted purge was finished; nothing of the agent is left.")
            code = EXIT_DONE
        except Stuck as error:
            _fail(error.failure.code, error.failure.message)
        except AgentError as error:
            _fail(error.code, error.message)
        except OSError as error:
            failure = local_failure(error, f"do {function.__name__.rstrip('_')}")
            _fail(failure.code, failure.message)
        context.exit(code)

    return wrapper


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--root-dir",
    type=click.Path(path_type=Path),
    default=Path("/"),
    envvar="COMMANDIT_ROOT_DIR",
    metavar="DIR",
    help="Relocate every path below DIR, so that a whole endpoint lives in one folder.",
)
@click.version_option(package_name="commandit-updates")
def commands(root_dir: Path) -> None:
    """Keep the components of this machine up to date.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused for safety, 4 another updater is at work, 5 partly done.
    """


@commands.command()
@click.option(
    "--server", "servers", multiple=True, metavar="URL", help="The update server; several are asked in order."
)
@click.option(
    "--root", "root_file", type=click.Path(path_type=Path, dir_okay=False), help="The root of trust, root.json."
)
@click.option("--secret-file", type=click.Path(path_type=Path, dir_okay=False), help="File with the shared secret.")
@click.option("--channel", type=_CHANNELS, help="Release channel (stable if nothing else is said).")
@click.option("--components", metavar="A,B", help="What this machine should have (service,ui,probe).")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="A static copy of the tree; repeatable.")
@click.option(
    "--service-manager", type=click.Choice([str(kind) for kind in ServiceKind]), help="Who runs the components."
)
@click.option(
    "--run-as",
    type=click.Choice([str(one) for one in RunAs]),
    help="How the agent itself runs under systemd (daemon, or what it was before).",
)
@click.option("--device-id", metavar="UUID", help="This machine's id; a random one is made and kept otherwise.")
@click.option("--org-id", metavar="ID")
@click.option("--site-id", metavar="ID")
@command
def install(
    paths: Paths,
    servers: tuple[str, ...],
    root_file: Path | None,
    secret_file: Path | None,
    channel: str | None,
    components: str | None,
    mirrors: tuple[str, ...],
    run_as: str | None,
    **others: str | None,
) -> int:
    """Configure this machine, and install its components. Run again, it changes what is given and keeps the rest."""
    _must_own(paths)
    settings: dict[str, Any] = {
        "update_server_url": list(servers) if len(servers) > 1 else next(iter(servers), None),
        "release_channel": channel,
        "components": None if components is None else [name.strip() for name in components.split(",") if name.strip()],
        "mirrors": list(mirrors) or None,
        **others,
    }
    paths.create()
    if removal_path(paths).exists():
        with contextlib.suppress(Purged), only_one(paths.lock):
            finish_removal(_for_repair(paths))
        paths.create()
    with only_one(paths.lock):
        provision(paths, Provision(root_file, secret_file, settings), str(uuid.uuid4()))
        config = load_config(paths.config, os.environ, {})
        result = _cycle(paths, config, "install")
    # After the lock: the resident agent begins with a cycle of its own.
    register_agent(put_together(paths, config, the_world()), None if run_as is None else RunAs(run_as))
    return _tell(result)


def _overrides(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--channel", type=_CHANNELS, help="Override the configured channel for this run."),
        click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="Override the mirrors for this run."),
        click.option("--server", "servers", multiple=True, metavar="URL", help="Override the server for this run."),
    ):
        function = option(function)
    return function


def _flags(servers: tuple[str, ...], mirrors: tuple[str, ...], channel: str | None) -> dict[str, Any]:
    given = {"update_server_url": list(servers) or None, "mirrors": list(mirrors) or None, "release_channel": channel}
    return {key: value for key, value in given.items() if value is not None}


@commands.command()
@click.option("--if-due", is_flag=True, help="Do nothing before the time of the next check, as `status` says it.")
@_overrides
@command
def once(paths: Paths, if_due: bool, **options: Any) -> int:
    """Run one cycle: check, and update if there is something."""
    _must_own(paths)
    if if_due and not _is_due(paths):
        return EXIT_DONE
    return _locked_cycle(paths, _flags(**options), "scheduled")


@commands.command()
@click.option("--retry", is_flag=True, help="Also try what was skipped after failures (quarantined, critical).")
@_overrides
@command
def checknow(paths: Paths, retry: bool, **options: Any) -> int:
    """Check now, whatever the schedule says (root only; FR-UPD-001B)."""
    return _locked_cycle(paths, _flags(**options), "manual", retry=retry)


@commands.command()
@click.argument("component")
@click.option("--clean", is_flag=True, help="Start without the preserved files of the installed one.")
@_overrides
@command
def reinstall(paths: Paths, component: str, clean: bool, **options: Any) -> int:
    """Install the latest version of a component anew, also when it is installed already (root only; FR-RIN-001)."""
    return _locked_cycle(paths, _flags(**options), "manual", order=Reinstall(component, clean))


@commands.command()
@command
def run(paths: Paths) -> int:
    """Stay, and check on schedule. SIGHUP: check now. SIGTERM: end."""
    _must_own(paths)
    # A fresh start without what this process has imported: it stays for months.
    become_agent(["--root-dir", str(paths.root_dir), "run"])


@commands.command(name="recover")
@command
def recover_(paths: Paths) -> int:
    """Finish or take back an interrupted update, and start what should run. Needs no configuration."""
    endpoint = _for_repair(paths)
    with only_one(paths.lock):
        recovered = recover(endpoint)
        if recovered.entry is not None:
            result = result_of(recovered.entry, recovered=True)
            Standing(endpoint).concluded(result)
            said = result.message or ", ".join(result.installed)
            how = "finished" if result.code is Code.OK else "taken back"
            click.echo(f"An interrupted update was {how}: {said}")
            if result.code.is_critical:
                _fail(result.code, result.message or "")
    for failure in recovered.not_running:
        _say(f"{failure.code.name}: {failure.message}", err=True)
    return EXIT_FAILED if recovered.not_running else EXIT_DONE


@commands.command()
@click.argument("components", nargs=-1)
@command
def stop(paths: Paths, components: tuple[str, ...]) -> int:
    """Stop components (all, if none is named); they stay stopped until `start` or the next update of them."""
    endpoint = _for_repair(paths)
    with only_one(paths.lock):
        return _tell_failures(stop_components(endpoint, components))


@commands.command()
@click.argument("components", nargs=-1)
@command
def start(paths: Paths, components: tuple[str, ...]) -> int:
    """Start components (all, if none is named) that are not running."""
    endpoint = _for_repair(paths)
    with only_one(paths.lock):
        return _tell_failures(start_components(endpoint, components))


@commands.command()
@click.argument("components", nargs=-1)
@click.option("--purge", is_flag=True, help="Also remove state, configuration and root of trust.")
@command
def uninstall(paths: Paths, components: tuple[str, ...], purge: bool) -> int:
    """Stop and remove components; without names all of them, and the agent's own registration with the system."""
    if purge and components:
        raise click.UsageError("--purge removes everything; name no components with it")
    endpoint = _for_repair(paths)
    with only_one(paths.lock):
        settle(endpoint)
        removal = begin_removal(endpoint, components, purge=purge)
        # Purged is no interruption here, but the end that was asked for.
        with contextlib.suppress(Purged):
            finish_removal(endpoint)
            Standing(endpoint).concluded(Result(OperationStatus.SUCCESS))
    click.echo(f"Removed: {', '.join(removal.components) or 'no component, for none was installed'}")
    for left in sorted(paths.install_root.iterdir()) if removal.everything and paths.install_root.exists() else []:
        _say(f"Left, for it is nothing that the agent installed: {left}")
    return EXIT_DONE


@commands.command()
@click.argument("components", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@command
def verify(paths: Paths, components: tuple[str, ...], as_json: bool) -> int:
    """Compare installed files with the lists of their packages (all components, if none is named)."""
    endpoint = _for_repair(paths)
    with only_one(paths.lock):
        verified = verify_components(endpoint, components)
    same = all(one.same for one in verified)
    if as_json:
        click.echo(json.dumps({"same": same, "components": [one.to_json() for one in verified]}, indent=2))
    else:
        for line in [line for one in verified for line in one.in_words()] or ["Nothing is installed."]:
            _say(line)
    return EXIT_DONE if same else EXIT_FAILED


@commands.command()
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
            _say(line)
    return EXIT_DONE


def _in_words(state: Status) -> list[str]:
    installed = ", ".join(f"{one.name} {one.version}" for one in state.installed_components) or "nothing"
    lines = [f"Installed: {installed} (channel {state.assigned_channel or 'not known yet'})"]
    if state.last_error_code is Code.OK:
        said = state.last_operation_status if state.installed_components else "nothing to install"
        said = "none" if state.last_check_time is None else said
        lines.append(f"Last: {said}, checked {_at(state.last_check_time) or 'never'}")
        lines += [] if state.last_error_message is None else [f"Not installed: {state.last_error_message}"]
    else:
        why = f"{state.last_error_code.name}: {state.last_error_message}. {state.last_error_code.action}"
        lines.append(f"Last: {state.last_operation_status}, {why}")
    skipped = "".join(f"; {one.name} {one.version} is skipped" for one in state.quarantined)
    lines.append(f"Next: check at {_at(state.next_check_time) or 'the next start'}{skipped}")
    return lines


def _at(moment: datetime | None) -> str | None:
    """Return a time as this machine's clocks show it, with its zone."""
    return None if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S %z}"


def _locked_cycle(
    paths: Paths, flags: Mapping[str, Any], trigger: str, *, retry: bool = False, order: Reinstall | None = None
) -> int:
    _must_own(paths)
    config = load_config(paths.config, os.environ, flags)
    paths.create()
    with only_one(paths.lock):
        if retry:
            save_quarantine(paths.state / ATTEMPTS, Quarantine())
        return _tell(_cycle(paths, config, trigger, order))


def _is_due(paths: Paths) -> bool:
    """Whether there is something to do: the time of the next check has come, or an update was interrupted."""
    following = load_status(paths.status).status.next_check_time
    if following is None or paths.journal.exists():
        return True
    # A clock that was set back must not put it off for years.
    return not 0 < (following - datetime.now(UTC)).total_seconds() <= LONGEST


def _cycle(paths: Paths, config: Config, trigger: str, order: Reinstall | None = None) -> Result:
    os.umask(0o077)
    endpoint = put_together(paths, config, the_world())
    if "COMMANDIT_LAUNCH" in os.environ:
        # A component called us: stopping it must not stop us with it, nor its folder's end take ours away.
        os.chdir("/")
        with contextlib.suppress(PermissionError):
            os.setsid()
    with _ended_by_signals(endpoint):
        return Cycle(endpoint, trigger, order).run()


@contextlib.contextmanager
def _ended_by_signals(endpoint: Endpoint) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, endpoint.interruption.request) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _for_repair(paths: Paths) -> Endpoint:
    """Return an endpoint also where the configuration is unusable: what it has must still be saved."""
    _must_own(paths)
    try:
        config = load_config(paths.config, os.environ, {})
    except AgentError as error:
        click.echo(f"{error.code.name}: {error.message}; going on with the defaults", err=True)
        config = Config()
    paths.create()
    os.umask(0o077)
    return put_together(paths, config, the_world())


def _must_own(paths: Paths) -> None:
    """Refuse everybody but root, and the owner of an endpoint that is relocated (FR-UPD-001B, NFR-SEC-003)."""
    if os.geteuid() == 0:
        return
    # Not Path.exists(): that raises for folders that we may not look into.
    existing = next(folder for folder in (paths.root_dir, *paths.root_dir.parents) if os.path.lexists(folder))
    if paths.root_dir == Path("/") or existing.lstat().st_uid != os.geteuid():
        raise AgentError(Code.PERMISSION, "only root may do this; run it with sudo")


def _tell(result: Result) -> int:
    for note in result.notes:
        _say(f"Not installed: {note}")
    if result.installed:
        click.echo(f"Installed: {', '.join(result.installed)}")
    for path in result.left_behind:
        _say(f"Not carried over, as --clean says: {path}")
    if result.code is not Code.OK:
        _say(f"{result.status} {result.code.name} ({result.code.value}): {result.message}", err=True)
        click.echo(f"What to do: {result.code.action}", err=True)
    elif result.status is OperationStatus.UP_TO_DATE:
        click.echo("Nothing else to do." if result.notes else "Up to date.")
    return result.exit_code


def _tell_failures(failures: tuple[AgentError, ...]) -> int:
    for failure in failures:
        _say(f"{failure.code.name}: {failure.message}", err=True)
    return EXIT_FAILED if failures else EXIT_DONE


def _say(text: str, *, err: bool = False) -> None:
    """Print one line: what a server or a program said must not move the terminal's cursor or look like our words."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    click.echo(shown, err=err)


def _fail(code: Code, message: str) -> NoReturn:
    _say(f"{code.name} ({code.value}): {message}", err=True)
    sys.exit(code.exit_code)
