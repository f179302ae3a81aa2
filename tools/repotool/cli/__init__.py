"""The command line: the only place that knows click, the clock, the environment and the terminal."""

from __future__ import annotations

from pathlib import Path

import click

from repotool.cli import facts, fleet, keys, packages, releases
from repotool.cli.failures import SentenceGroup

_EPILOG = """\
Exit codes: 0 done (also: nothing to do), 1 failed, 2 wrong usage, 3 refused for safety, 4 another operation holds the
tree's lock, 5 partly done (the same command finishes the rest).
"""


@click.group(cls=SentenceGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--tree",
    type=click.Path(path_type=Path),
    envvar="REPOTOOL_TREE",
    metavar="DIR",
    help="The downloads tree; may also stand after the verb, or in REPOTOOL_TREE.",
)
@click.version_option(package_name="commandit-updates", prog_name="repotool")
@click.pass_context
def repotool(context: click.Context, tree: Path | None) -> None:
    """Publish, promote and recall releases in a downloads tree."""
    context.obj = tree


for command in (*keys.COMMANDS, *packages.COMMANDS, *releases.COMMANDS, *facts.COMMANDS, *fleet.COMMANDS):
    repotool.add_command(command)


def main() -> None:
    """Run the command line and exit with its code (design §11)."""
    repotool(prog_name="repotool")
