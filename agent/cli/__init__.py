"""The command line: reads the environment, puts an endpoint together, and says what happened (design §8, §11)."""

from __future__ import annotations

from pathlib import Path

import click

from agent.bundle import own_version
from agent.cli import facts, repair, setup, updates
from agent.cli.options import ROOT_DIR


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--root-dir",
    type=ROOT_DIR,
    default=Path("/"),
    envvar="COMMANDIT_ROOT_DIR",
    metavar="DIR",
    help="Relocate every path below DIR, so that a whole endpoint lives in one folder.",
)
@click.version_option(own_version())
def commands(root_dir: Path) -> None:
    """Keep the components of this machine up to date.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused for safety, 4 another updater is at work, 5 partly done.
    """


for command in (*setup.COMMANDS, *updates.COMMANDS, *repair.COMMANDS, *facts.COMMANDS):
    commands.add_command(command)
