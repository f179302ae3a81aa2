"""A cycle from the command line: under the lock, ended by signals, told at the end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from agent.cli.endpoints import must_own
from agent.cli.words import tell
from agent.cli.world import the_world
from agent.config import Config, load_config
from agent.cycle import Cycle
from agent.endpoint import Endpoint, put_together
from agent.lock import only_one
from agent.paths import Paths
from agent.quarantine import ATTEMPTS, Quarantine, save_quarantine
from agent.reinstall import Reinstall
from agent.result import Result
from agent.schedule import LONGEST
from agent.status import load_status


def locked_cycle(
    paths: Paths, flags: Mapping[str, Any], trigger: str, *, retry: bool = False, order: Reinstall | None = None
) -> int:
    """Run one cycle as the configuration and the flags say; return the exit code."""
    must_own(paths)
    config = load_config(paths.config, os.environ, flags)
    paths.create()
    with only_one(paths.lock):
        if retry:
            save_quarantine(paths.state / ATTEMPTS, Quarantine())
        return tell(one_cycle(paths, config, trigger, order))


def one_cycle(paths: Paths, config: Config, trigger: str, order: Reinstall | None = None) -> Result:
    """Run one cycle, which signals end at its next safe point; the caller holds the lock."""
    os.umask(0o077)
    endpoint = put_together(paths, config, the_world())
    if "COMMANDIT_LAUNCH" in os.environ:
        # A component called us: stopping it must not stop us with it, nor its folder's end take ours away.
        os.chdir("/")
        with contextlib.suppress(PermissionError):
            os.setsid()
    with _ended_by_signals(endpoint):
        return Cycle(endpoint, trigger, order).run()


@contextlib.contextmanager
def _ended_by_signals(endpoint: Endpoint) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, endpoint.interruption.request) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_due(paths: Paths) -> bool:
    """Whether there is something to do: the time of the next check has come, or an update was interrupted."""
    following = load_status(paths.status).status.next_check_time
    if following is None or paths.journal.exists():
        return True
    # A clock that was set back must not put it off for years.
    return not 0 < (following - datetime.now(UTC)).total_seconds() <= LONGEST
