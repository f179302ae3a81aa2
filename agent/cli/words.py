"""What the commands say: results, failures and plain lines."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from agent.codes import EXIT_DONE, EXIT_FAILED, Code
from agent.errors import AgentError
from agent.result import Result
from agent.status import OperationStatus


def say(text: str, *, err: bool = False) -> None:
    """Print one line: what a server or a program said must not move the terminal's cursor or look like our words."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    click.echo(shown, err=err)


def fail(code: Code, message: str) -> NoReturn:
    """Say what is wrong, and end with the code's exit code."""
    say(f"{code.name} ({code.value}): {message}", err=True)
    sys.exit(code.exit_code)


def tell(result: Result) -> int:
    """Say what a cycle did and what to do next; return the exit code."""
    for note in result.notes:
        say(f"Not installed: {note}")
    if result.installed:
        click.echo(f"Installed: {', '.join(result.installed)}")
    for path in result.left_behind:
        say(f"Not carried over, as --clean says: {path}")
    if result.code is not Code.OK:
        say(f"{result.status} {result.code.name} ({result.code.value}): {result.message}", err=True)
        click.echo(f"What to do: {result.code.action}", err=True)
    elif result.status is OperationStatus.UP_TO_DATE:
        click.echo("Nothing else to do." if result.notes else "Up to date.")
    return result.exit_code


def tell_failures(failures: tuple[AgentError, ...]) -> int:
    """Say what failed; return the exit code."""
    for failure in failures:
        say(f"{failure.code.name}: {failure.message}", err=True)
    return EXIT_FAILED if failures else EXIT_DONE
