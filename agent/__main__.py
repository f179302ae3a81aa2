"""The program ``commandit-updater``. ``run`` starts before anything heavy is imported (NFR-PER-001)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from agent.platform.resident import Waiting

TYPE_CHECKING = False
"""Not imported: the module typing would stay in an idle agent's memory (NFR-PER-001)."""
if TYPE_CHECKING:
    from agent.daemon import Surroundings

ROOT_DIR_VARIABLE = "COMMANDIT_ROOT_DIR"
TRIAL = "--trial"


def main() -> None:
    """Run a command and exit with its code (design §11)."""
    root_dir, words = _split(sys.argv[1:])
    if root_dir and words == ["run"]:
        sys.exit(be_resident(root_dir, Waiting()))
    if root_dir and words[:2] == ["run", TRIAL] and words[2:3]:
        sys.exit(be_on_trial(root_dir, words[2], words[3:]))
    if root_dir and words == ["service"] and sys.platform == "win32":
        sys.exit(_be_a_service(root_dir))
    from agent.cli import commands

    commands(prog_name="commandit-updater")


def be_resident(root_dir: str, waiting: Waiting) -> int:
    """Be the resident agent until told to end, or until a self-update has put a newer one in its place."""
    from agent.daemon import Daemon
    from agent.platform.spawn import become_agent

    if Daemon(_surroundings(root_dir), waiting).run():
        become_agent(["--root-dir", root_dir, "run"], os.environ)
    return 0


def be_on_trial(root_dir: str, seconds: str, more: Sequence[str]) -> int:
    """Show the agent that runs here that this one could replace it; return the exit code (FR-SUP-003)."""
    from agent.trial import TRIAL_VARIABLE, Trial, last_words

    try:
        stay = float(seconds)
    except ValueError:
        stay = -1.0
    if not 0 <= stay < float("inf"):
        print(f"--trial needs a number of seconds, not {seconds!r}", file=sys.stderr)  # noqa: T201 -- wrong usage
        return 2
    said = last_words(os.environ.get(TRIAL_VARIABLE, ""))
    return Trial(_surroundings(root_dir), Waiting(), stay, more, said).stand()


def _surroundings(root_dir: str) -> Surroundings:
    from pathlib import Path

    from agent.daemon import Surroundings
    from agent.platform.places import places_of
    from agent.platform.spawn import Successor, own_program, spawn_agent

    root = Path(os.path.abspath(root_dir))  # noqa: PTH100 -- resolve() follows links
    places = places_of(os.environ, whole_machine=root == Path(root.anchor))
    return Surroundings(
        root / places.state,
        ("--root-dir", str(root)),
        spawn=lambda arguments: spawn_agent(arguments, os.environ),
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        random=lambda: int.from_bytes(os.urandom(6), "big") / 2**48,
        say=lambda text: print(text, file=sys.stderr, flush=True),  # noqa: T201 -- the service manager's log
        succeeded=Successor(own_program(os.environ)).is_there,
    )


if sys.platform == "win32":

    def _be_a_service(root_dir: str) -> int:
        from agent.errors import AgentError
        from agent.platform.win32 import load_win32
        from agent.platform.windows_service import ServiceHost

        waiting = Waiting()
        try:
            return ServiceHost(load_win32(), waiting).run(lambda: be_resident(root_dir, waiting))
        except AgentError as error:
            print(f"{error.code.name}: {error.message}", file=sys.stderr)  # noqa: T201 -- a person started it
            return error.code.exit_code


def _split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the root folder and the other words: a plain ``run`` goes past the command line's parser."""
    root_dir, words, waiting = os.environ.get(ROOT_DIR_VARIABLE, "/"), [], list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--root-dir" and waiting:
            root_dir = waiting.pop(0)
        elif argument.startswith("--root-dir="):
            root_dir = argument.partition("=")[2]
        else:
            words.append(argument)
    return root_dir, words


if __name__ == "__main__":
    main()
