"""The program ``commandit-updater``. ``run`` starts before anything heavy is imported (NFR-PER-001)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

ROOT_DIR_VARIABLE = "COMMANDIT_ROOT_DIR"


def main() -> None:
    """Run a command and exit with its code (design §11)."""
    root_dir = _plain_run(sys.argv[1:])
    if root_dir is not None:
        sys.exit(be_resident(root_dir))
    from agent.cli import commands

    commands(prog_name="commandit-updater")


def be_resident(root_dir: str) -> int:
    """Be the resident agent until a signal says otherwise; return the exit code."""
    from agent.daemon import run_daemon
    from agent.platform.spawn import spawn_agent

    return run_daemon(
        os.path.abspath(root_dir),  # noqa: PTH100 -- pathlib is what makes the difference in memory here
        lambda arguments: spawn_agent(arguments, os.environ),
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        random=lambda: int.from_bytes(os.urandom(6), "big") / 2**48,
        say=lambda text: print(text, file=sys.stderr, flush=True),  # noqa: T201 -- the service manager's log
    )


def _plain_run(arguments: Sequence[str]) -> str | None:
    """Return the root folder if the command line is a plain ``run``; anything else is for the command line's parser."""
    root_dir, verbs, waiting = os.environ.get(ROOT_DIR_VARIABLE, "/"), [], list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--root-dir" and waiting:
            root_dir = waiting.pop(0)
        elif argument.startswith("--root-dir="):
            root_dir = argument.partition("=")[2]
        else:
            verbs.append(argument)
    return root_dir if verbs == ["run"] and root_dir else None


if __name__ == "__main__":
    main()
