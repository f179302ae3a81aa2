"""The verbs that mend: recover, stop, start."""

from __future__ import annotations

import click

from agent.cli.command import command
from agent.cli.endpoints import for_repair
from agent.cli.words import fail, say, tell_failures
from agent.codes import EXIT_DONE, EXIT_FAILED, Code
from agent.errors import AgentError
from agent.lock import only_one
from agent.paths import Paths
from agent.recover import ensure_running, recover
from agent.result import result_of
from agent.services import start_components, stop_components
from agent.standing import Standing


@click.command(name="recover")
@command
def recover_(paths: Paths) -> int:
    """Finish or take back an interrupted update, and start what should run. Needs no configuration."""
    endpoint = for_repair(paths)
    with only_one(paths.lock):
        recovered = recover(endpoint)
        if recovered.entry is not None:
            result = result_of(recovered.entry, recovered=True)
            Standing(endpoint).concluded(result)
            said = result.message or ", ".join(result.installed)
            how = "finished" if result.code is Code.OK else "taken back"
            click.echo(f"An interrupted update was {how}: {said}")
            if result.code.is_critical:
                fail(result.code, result.message or "")
    for failure in recovered.not_running:
        say(f"{failure.code.name}: {failure.message}", err=True)
    return EXIT_FAILED if recovered.not_running else EXIT_DONE


@click.command()
@click.argument("components", nargs=-1)
@command
def stop(paths: Paths, components: tuple[str, ...]) -> int:
    """Stop components (all, if none is named); they stay stopped until `start` or the next update of them."""
    endpoint = for_repair(paths)
    with only_one(paths.lock):
        return tell_failures(stop_components(endpoint, components))


@click.command()
@click.argument("components", nargs=-1)
@click.option("--if-wanted", is_flag=True, help="Only those that nobody has stopped by hand.")
@command
def start(paths: Paths, components: tuple[str, ...], if_wanted: bool) -> int:
    """Start components (all, if none is named) that are not running."""
    endpoint = for_repair(paths)
    with only_one(paths.lock):
        if not if_wanted:
            return tell_failures(start_components(endpoint, components))
        failures = ensure_running(endpoint, frozenset(components) or None)
        return tell_failures(tuple(AgentError(failure.code, failure.message) for failure in failures))


COMMANDS = (recover_, stop, start)
