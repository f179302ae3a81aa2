"""Who may act on this machine, and the endpoint for those who mend it."""

from __future__ import annotations

import os

import click

from agent.cli.world import the_world
from agent.codes import Code
from agent.config import Config, load_config
from agent.endpoint import Endpoint, put_together
from agent.errors import AgentError
from agent.paths import Paths
from agent.platform.access import ACCESS


def must_own(paths: Paths) -> None:
    """Refuse everybody but root, and the owner of an endpoint that is relocated (FR-UPD-001B, NFR-SEC-003)."""
    if not ACCESS.may_act(paths.root_dir, whole_machine=paths.is_whole_machine):
        raise AgentError(Code.PERMISSION, ACCESS.who_may())


def for_repair(paths: Paths) -> Endpoint:
    """Return an endpoint also where the configuration is unusable: what it has must still be saved."""
    must_own(paths)
    try:
        config = load_config(paths.config, os.environ, {})
    except AgentError as error:
        click.echo(f"{error.code.name}: {error.message}; going on with the defaults", err=True)
        config = Config()
    paths.create()
    os.umask(0o077)
    return put_together(paths, config, the_world())
