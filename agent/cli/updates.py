"""The verbs that check for updates: once, checknow, reinstall, run."""

from __future__ import annotations

import os
from typing import Any

import click

from agent.cli.answering import answer
from agent.cli.command import command
from agent.cli.cycles import Order, is_due, locked_cycle
from agent.cli.endpoints import must_own
from agent.cli.options import flags, overrides, patience
from agent.codes import EXIT_DONE
from agent.paths import Paths
from agent.platform.spawn import become_agent
from agent.reinstall import Reinstall


@click.command()
@click.option("--if-due", is_flag=True, help="Do nothing before the time of the next check, as `status` says it.")
@patience
@overrides
@command
def once(paths: Paths, if_due: bool, wait: float, **options: Any) -> int:
    """Run one cycle: check, and update if there is something."""
    must_own(paths)
    if if_due and not is_due(paths):
        return EXIT_DONE
    return locked_cycle(paths, flags(**options), Order("scheduled"), wait=wait)


@click.command()
@click.option("--retry", is_flag=True, help="Also try what was skipped after failures (quarantined, critical).")
@patience
@overrides
@command
def checknow(paths: Paths, retry: bool, wait: float, **options: Any) -> int:
    """Check now, whatever the schedule says (root only; FR-UPD-001B)."""
    return locked_cycle(paths, flags(**options), Order("manual", retry=retry), wait=wait)


@click.command()
@click.argument("component")
@click.option("--clean", is_flag=True, help="Start without the preserved files of the installed one.")
@patience
@overrides
@command
def reinstall(paths: Paths, component: str, clean: bool, wait: float, **options: Any) -> int:
    """Install the latest version of a component anew, also when it is installed already (root only; FR-RIN-001)."""
    order = Order("manual", reinstall=Reinstall(component, clean))
    return locked_cycle(paths, flags(**options), order, wait=wait)


@click.command()
@command
def run(paths: Paths) -> int:
    """Stay, and check on schedule. SIGHUP: check now. SIGTERM: end."""
    must_own(paths)
    # A fresh start without what this process has imported: it stays for months.
    become_agent(["--root-dir", str(paths.root_dir), "run"], os.environ)


COMMANDS = (once, checknow, reinstall, run, answer)
