"""The verbs that begin and end an installation: install, uninstall."""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from agent.bootstrap import Provision, provision
from agent.bundle import built_in_package, built_in_root, installed_form
from agent.cli.command import command
from agent.cli.cycles import one_cycle
from agent.cli.endpoints import for_repair, must_own
from agent.cli.options import CHANNELS
from agent.cli.words import say, tell
from agent.cli.world import the_world
from agent.codes import EXIT_DONE
from agent.config import load_config
from agent.endpoint import Endpoint, put_together
from agent.lock import only_one
from agent.paths import Paths
from agent.platform.ownservice import RunAs
from agent.recover import settle
from agent.registration import register_agent
from agent.removal import Purged, begin_removal, finish_removal, removal_path
from agent.result import Result, result_of
from agent.seed import seed
from agent.standing import Standing
from agent.status import OperationStatus
from repo_server.core.package import ServiceKind


def _or_another(_context: click.Context, _parameter: click.Parameter, device_id: str | None) -> str | None:
    """Return the id that was given, or a random one for "new": for a machine whose disk is a copy of another's."""
    return str(uuid.uuid4()) if device_id == "new" else device_id


@click.command()
@click.option(
    "--server", "servers", multiple=True, metavar="URL", help="The update server; several are asked in order."
)
@click.option(
    "--root", "root_file", type=click.Path(path_type=Path, dir_okay=False), help="The root of trust, root.json."
)
@click.option("--secret-file", type=click.Path(path_type=Path, dir_okay=False), help="File with the shared secret.")
@click.option("--channel", type=CHANNELS, help="Release channel (stable if nothing else is said).")
@click.option("--components", metavar="A,B", help="What this machine should have (service,ui,probe).")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="A static copy of the tree; repeatable.")
@click.option(
    "--service-manager", type=click.Choice([str(kind) for kind in ServiceKind]), help="Who runs the components."
)
@click.option(
    "--run-as",
    type=click.Choice([str(one) for one in RunAs]),
    help="How the agent itself runs (daemon, or what it was before); timer: systemd and launchd.",
)
@click.option(
    "--device-id",
    metavar="UUID",
    callback=_or_another,
    help="This machine's id; a random one is made and kept otherwise. new: another random one.",
)
@click.option("--insecure-http", is_flag=True, default=None, help="Allow http:// to other machines; for tests.")
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
    **others: Any,
) -> int:
    """Configure this machine, and install its components. Run again, it changes what is given and keeps the rest."""
    must_own(paths)
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
            finish_removal(for_repair(paths))
        paths.create()
    with only_one(paths.lock):
        provision(paths, Provision(root_file, secret_file, settings, built_in_root()), str(uuid.uuid4()))
        config = load_config(paths.config, os.environ, {})
        installed = _install_this_build(put_together(paths, config, the_world()))
        result = one_cycle(paths, config, "install")
        result = replace(result, installed=(*installed, *result.installed))
    # After the lock: the resident agent begins with a cycle of its own.
    register_agent(put_together(paths, config, the_world()), None if run_as is None else RunAs(run_as))
    return tell(result)


def _install_this_build(endpoint: Endpoint) -> tuple[str, ...]:
    """Make this agent the installed one if it is a build that is not; return what to say."""
    package = built_in_package()
    if package is None:
        return ()
    settle(endpoint)
    entry = seed(endpoint, package, installed_form())
    return () if entry is None else result_of(entry).installed


@click.command()
@click.argument("components", nargs=-1)
@click.option("--purge", is_flag=True, help="Also remove state, configuration and root of trust.")
@command
def uninstall(paths: Paths, components: tuple[str, ...], purge: bool) -> int:
    """Stop and remove components; without names all of them, and the agent's own registration with the system."""
    if purge and components:
        raise click.UsageError("--purge removes everything; name no components with it")
    endpoint = for_repair(paths)
    with only_one(paths.lock):
        settle(endpoint)
        removal = begin_removal(endpoint, components, purge=purge)
        # Purged is no interruption here, but the end that was asked for.
        with contextlib.suppress(Purged):
            finish_removal(endpoint)
            Standing(endpoint).concluded(Result(OperationStatus.SUCCESS))
    click.echo(f"Removed: {', '.join(removal.components) or 'no component, for none was installed'}")
    for left in sorted(paths.install_root.iterdir()) if removal.everything and paths.install_root.exists() else []:
        say(f"Left, for it is nothing that the agent installed: {left}")
    return EXIT_DONE


COMMANDS = (install, uninstall)
