"""The program ``commandit-updater``. ``run`` starts before anything heavy is imported (NFR-PER-001)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from agent.platform.resident import Waiting

ROOT_DIR_VARIABLE = "COMMANDIT_ROOT_DIR"


def main() -> None:
    """Run a command and exit with its code (design §11)."""
    verb, root_dir = _plain(sys.argv[1:])
    if verb == "run":
        sys.exit(be_resident(root_dir, Waiting()))
    if verb == "service" and sys.platform == "win32":
        sys.exit(_be_a_service(root_dir))
    from agent.cli import commands

    commands(prog_name="commandit-updater")


def be_resident(root_dir: str, waiting: Waiting) -> int:
    """Be the resident agent until somebody says otherwise; return the exit code."""
    from pathlib import Path

    from agent.daemon import run_daemon
    from agent.platform.places import places_of
    from agent.platform.spawn import spawn_agent

    root = Path(os.path.abspath(root_dir))  # noqa: PTH100 -- resolve() follows links
    places = places_of(os.environ, whole_machine=root == Path(root.anchor))
    return run_daemon(
        root / places.state,
        ("--root-dir", str(root)),
        lambda arguments: spawn_agent(arguments, os.environ),
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        random=lambda: int.from_bytes(os.urandom(6), "big") / 2**48,
        say=lambda text: print(text, file=sys.stderr, flush=True),  # noqa: T201 -- the service manager's log
        waiting=waiting,
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


def _plain(arguments: Sequence[str]) -> tuple[str | None, str]:
    """Return the verb of a plain command line, and the root folder; ``None``: it is for the command line's parser."""
    root_dir, verbs, waiting = os.environ.get(ROOT_DIR_VARIABLE, "/"), [], list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--root-dir" and waiting:
            root_dir = waiting.pop(0)
        elif argument.startswith("--root-dir="):
            root_dir = argument.partition("=")[2]
        else:
            verbs.append(argument)
    return (verbs[0], root_dir) if len(verbs) == 1 and root_dir else (None, root_dir)


if __name__ == "__main__":
    main()
