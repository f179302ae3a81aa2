"""Whether and how the agent registers itself with the system (FR-BST-002)."""

from __future__ import annotations

import os
from typing import Protocol

from agent.codes import Code
from agent.endpoint import Endpoint
from agent.errors import AgentError
from agent.platform.ownservice import BOOTED, OwnService, RunAs
from agent.platform.spawn import agent_command
from agent.selfupdate import is_installed, program_in
from repo_server.core.model import UPDATER, Os
from repo_server.core.package import ServiceKind


class OwnRegistration(Protocol):
    """The agent with a system's service manager. Idempotent; a killed one is repeated."""

    def current(self) -> RunAs:
        """Return how the agent is registered now."""

    def register(self, run_as: RunAs, interval_seconds: int) -> None:
        """Make the agent run so from now on and at each boot; ``NONE`` takes it out. Raises ``AgentError``."""

    def refresh(self, interval_seconds: int) -> bool:
        """Write what is registered as this version writes it; what is not registered, or held back, stays so.

        Nothing is started or stopped: what runs goes on, and the system's next start is by the new text. Return
        whether anything changed. Raises ``AgentError``.
        """


_MANAGERS = {
    Os.LINUX: ServiceKind.SYSTEMD,
    Os.MACOS: ServiceKind.LAUNCHD,
    Os.WINDOWS: ServiceKind.WINDOWS_SERVICE,
}
_EXPECTED = {
    Os.LINUX: "service_manager systemd, a machine that systemd runs, and no --root-dir",
    Os.MACOS: "service_manager launchd, and no --root-dir",
    Os.WINDOWS: "service_manager windows-service, and no --root-dir",
}


def register_agent(endpoint: Endpoint, run_as: RunAs | None) -> None:
    """Register the agent where the system's own manager runs this machine's components; ``None`` keeps how it runs.

    The lock must be free. Raises ``AgentError``: NOT_SUPPORTED if ``run_as`` was asked for and cannot be.
    """
    if not _is_for_system(endpoint):
        if run_as not in {None, RunAs.NONE}:
            raise AgentError(
                Code.NOT_SUPPORTED,
                f"the agent cannot run as {run_as}: expected {_EXPECTED[endpoint.world.platform.os]}. "
                "Everything else is installed; start commandit-updater run by yourself",
            )
        return
    own = own_registration(endpoint)
    if run_as is None:
        before = own.current()
        run_as = RunAs.DAEMON if before is RunAs.NONE else before
    own.register(run_as, endpoint.config.update_check_interval_seconds)


def unregister_agent(endpoint: Endpoint) -> None:
    """Stop the agent itself and take it out of the system; nothing to do where it is not in there. Idempotent."""
    if _is_for_system(endpoint):
        own_registration(endpoint).register(RunAs.NONE, endpoint.config.update_check_interval_seconds)


def refresh_agent(endpoint: Endpoint) -> None:
    """Bring the agent's own registration with the system to this version after a self-update (FR-SUP-001). Idempotent.

    Only the installed agent does it: one that was started by hand, from elsewhere, has nothing to say about them.
    Never raises: what is registered starts this version as well.
    """
    if not (is_installed(endpoint.paths, endpoint.world.program) and _is_for_system(endpoint)):
        return
    try:
        if own_registration(endpoint).refresh(endpoint.config.update_check_interval_seconds):
            endpoint.log.info("the agent's own registration is that of this version", version=endpoint.world.version)
    except AgentError as error:
        endpoint.log.warning(error.message, code=error.code)


def _is_for_system(endpoint: Endpoint) -> bool:
    system = endpoint.world.platform.os
    wanted = endpoint.config.service_manager in {None, _MANAGERS[system]}
    there = system is not Os.LINUX or BOOTED.is_dir()
    return wanted and there and endpoint.paths.is_whole_machine


def own_registration(endpoint: Endpoint) -> OwnRegistration:
    """Return the agent's registration with this system."""
    return {Os.LINUX: _systemd, Os.MACOS: _launchd, Os.WINDOWS: _windows}[endpoint.world.platform.os](endpoint)


def _systemd(endpoint: Endpoint) -> OwnService:
    from agent.platform.cgroup import own_groups

    return OwnService(endpoint.programs, _command(endpoint), within=own_groups())


def _launchd(endpoint: Endpoint) -> OwnRegistration:
    from agent.platform.launchctl import launchctl
    from agent.platform.launchd import DAEMONS
    from agent.platform.launchd_ownservice import LaunchdOwnService

    return LaunchdOwnService(
        launchctl,
        endpoint.world.clock,
        _command(endpoint),
        endpoint.paths.root_dir / DAEMONS,
        endpoint.paths.run,
        _own_pids(),
    )


def _windows(endpoint: Endpoint) -> OwnRegistration:
    from agent.platform.win32 import load_win32
    from agent.platform.windows_ownservice import WindowsOwnService

    command = _command(endpoint)
    return WindowsOwnService(load_win32(), endpoint.world.clock, command, _own_pids())


def _command(endpoint: Endpoint) -> list[str]:
    # What lies there is the last committed agent: nothing else is started at boot, and for recovery least of all.
    installed = program_in(endpoint.paths.install(UPDATER), endpoint.world.platform.os)
    program = installed if installed.exists() else endpoint.world.program
    return agent_command((), {}) if program is None else [str(program)]


def _own_pids() -> frozenset[int]:
    return frozenset({os.getpid(), os.getppid()})
