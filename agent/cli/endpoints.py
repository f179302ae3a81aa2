"""Who may act on this machine, and the endpoint for those who mend it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from agent.cli.world import the_world
from agent.codes import Code
from agent.config import Config, load_config
from agent.endpoint import Endpoint, put_together
from agent.errors import AgentError
from agent.paths import Paths


def must_own(paths: Paths) -> None:
    """Refuse everybody but root, and the owner of an endpoint that is relocated (FR-UPD-001B, NFR-SEC-003)."""
    if os.geteuid() == 0:
        return
    # Not Path.exists(): that raises for folders that we may not look into.
    existing = next(folder for folder in (paths.root_dir, *paths.root_dir.parents) if os.path.lexists(folder))
    if paths.root_dir == Path("/") or existing.lstat().st_uid != os.geteuid():
        raise AgentError(Code.PERMISSION, "only root may do this; run it with sudo")


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
