"""A cycle from the command line: under the lock, ended by signals, told at the end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.cli.endpoints import must_own
from agent.cli.words import tell
from agent.cli.world import the_world
from agent.codes import Code
from agent.config import ENVIRONMENT_PREFIX, Config, load_config
from agent.cycle import Cycle
from agent.endpoint import Endpoint, put_together
from agent.errors import AgentError
from agent.lock import only_one
from agent.paths import Paths
from agent.platform.cgroup import own_groups
from agent.platform.session import leave_the_caller, told_to_end
from agent.platform.spawn import agent_command
from agent.platform.transient import component_service, leave_for_unit
from agent.ports import Clock
from agent.quarantine import ATTEMPTS, Quarantine, save_quarantine
from agent.reinstall import Reinstall
from agent.result import Result
from agent.schedule import LONGEST
from agent.status import load_status

_PAUSE = 0.2
"""Seconds between two tries to get the lock."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a cycle."""

    trigger: str
    retry: bool = False
    """Also what is quarantined or held."""
    reinstall: Reinstall | None = None


def locked_cycle(paths: Paths, flags: Mapping[str, Any], order: Order, *, wait: float = 0.0) -> int:
    """Run one cycle as the configuration and the flags say; return the exit code.

    Waits up to ``wait`` seconds for another updater; raises ``AgentError(BUSY)`` then, which is logged (FR-UPD-009).
    """
    must_own(paths)
    config = load_config(paths.config, os.environ, flags)
    paths.create()
    endpoint = put_together(paths, config, the_world(flags))
    _leave_component(endpoint)
    try:
        with _lock(paths, wait, endpoint.world.clock):
            if order.retry:
                save_quarantine(paths.state / ATTEMPTS, Quarantine())
            return tell(run_cycle(endpoint, order))
    except AgentError as error:
        if error.code is Code.BUSY:
            endpoint.log.warning(error.message, code=error.code, trigger=order.trigger)
        raise


def one_cycle(paths: Paths, config: Config, trigger: str) -> Result:
    """Run one cycle as the configuration says; the caller holds the lock."""
    return run_cycle(put_together(paths, config, the_world()), Order(trigger))


def run_cycle(endpoint: Endpoint, order: Order) -> Result:
    """Run one cycle, which signals end at its next safe point; the caller holds the lock."""
    os.umask(0o077)
    if "COMMANDIT_LAUNCH" in os.environ:
        # A component called us: stopping it must not stop us with it, nor its folder's end take ours away.
        leave_the_caller()
    with told_to_end(endpoint.interruption.request, os.environ):
        return Cycle(endpoint, order.trigger, order.reinstall).run()


@contextlib.contextmanager
def _lock(paths: Paths, wait: float, clock: Clock) -> Iterator[None]:
    deadline = clock.monotonic() + wait
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(only_one(paths.lock))
                break
            except AgentError as error:
                if error.code is not Code.BUSY or clock.monotonic() >= deadline:
                    raise
            clock.sleep(_PAUSE)
        yield


def _leave_component(endpoint: Endpoint) -> None:
    """Go on in a unit of our own if a component that systemd runs called us: an update stops all of its unit."""
    if endpoint.paths.is_whole_machine and component_service(own_groups()) is not None:
        # What a unit gets stands where every user can read it.
        given = {name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT_PREFIX)}
        given.pop(f"{ENVIRONMENT_PREFIX}AUTH_SECRET", None)
        leave_for_unit(agent_command(sys.argv[1:], os.environ), given, endpoint.world.environment["PATH"])


def is_due(paths: Paths) -> bool:
    """Whether there is something to do: the time of the next check has come, or an update was interrupted."""
    following = load_status(paths.status).status.next_check_time
    if following is None or paths.journal.exists():
        return True
    # A clock that was set back must not put it off for years.
    return not 0 < (following - datetime.now(UTC)).total_seconds() <= LONGEST
