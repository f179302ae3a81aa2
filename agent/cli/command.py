"""A command: what its function returns or raises becomes output and an exit code."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agent.cli.options import ROOT_DIR
from agent.cli.words import fail
from agent.codes import EXIT_DONE
from agent.errors import AgentError, local_failure
from agent.paths import Paths
from agent.platform.places import places_of
from agent.removal import Purged
from agent.runner import Stuck


def command(function: Callable[..., int]) -> Callable[..., None]:
    """Turn what a command returns or raises into output and an exit code; accept ``--root-dir`` after the verb."""

    @click.option("--root-dir", type=ROOT_DIR, help="Relocate every path below DIR.")
    @click.pass_context
    @functools.wraps(function)
    def wrapper(context: click.Context, /, root_dir: Path | None, **options: Any) -> None:
        chosen = root_dir or context.find_root().params["root_dir"]
        try:
            code = function(_paths(chosen), **options)
        except Purged:
            click.echo("An interrupted purge was finished; nothing of the agent is left.")
            code = EXIT_DONE
        except Stuck as error:
            fail(error.failure.code, error.failure.message)
        except AgentError as error:
            fail(error.code, error.message)
        except BrokenPipeError:
            # Who reads has read enough (``status | head``); click says nothing more.
            raise
        except OSError as error:
            failure = local_failure(error, f"do {function.__name__.rstrip('_')}")
            fail(failure.code, failure.message)
        context.exit(code)

    return wrapper


def _paths(root_dir: Path) -> Paths:
    root = Path(os.path.abspath(root_dir))  # noqa: PTH100 -- resolve() follows links
    whole = root == Path(root.anchor)
    return Paths(root, places=places_of(os.environ, whole_machine=whole))
