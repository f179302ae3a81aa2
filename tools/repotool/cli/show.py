"""What a person sees: rich tables and progress on a terminal, plain aligned text otherwise; JSON when asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from repotool.digests import Progress as Report
from repotool.digests import silent
from repotool.tables import Table, plain

_COLOURS = {
    "offered": "green",
    "blocked": "red",
    "problem": "red",
    "pending": "yellow",
    "stable": "green",
    "beta": "yellow",
    "alpha": "magenta",
}


def say(text: str) -> None:
    """Print a line for people."""
    click.echo(text)


def heading(state: str, text: str) -> None:
    """Print a state in its colour, if somebody looks at it, and what it is the state of."""
    click.echo(f"{click.style(state, fg=_COLOURS.get(state))}  {text}")


def json(value: Any) -> None:
    """Print facts as one JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def table(content: Table) -> None:
    """Print a table, with colours if somebody looks at it."""
    if not sys.stdout.isatty():
        for line in plain(content):
            click.echo(line)
        return
    # Scripts never see rich, so they do not wait for it.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for column in content.columns:
        rich.add_column(
            column,
            justify="right" if column in content.numbers else "left",
            no_wrap=True,
        )
    for row in content.rows:
        rich.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    # A row that is too long goes on in the next line; cut names could not be copied.
    needed = max(map(len, plain(content))) + 2 * len(content.columns)
    console = Console()
    console.width = max(console.width, needed)
    console.print(rich, soft_wrap=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Report]:
    """Show a bar on stderr while bytes are worked through; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
