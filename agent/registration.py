"""Whether and how the agent registers itself with the system (FR-BST-002)."""

from __future__ import annotations

from agent.codes import Code
from agent.endpoint import Endpoint
from agent.errors import AgentError
from agent.platform.cgroup import own_groups
from agent.platform.ownservice import BOOTED, OwnService, RunAs
from agent.platform.spawn import agent_command
from repo_server.core.package import ServiceKind


def register_agent(endpoint: Endpoint, run_as: RunAs | None) -> None:
    """Register the agent with systemd where that runs this machine's components; ``None`` keeps how it runs.

    The lock must be free. Raises ``AgentError``: NOT_SUPPORTED if ``run_as`` was asked for and cannot be.
    """
    if not _is_for_systemd(endpoint):
        if run_as not in {None, RunAs.NONE}:
            raise AgentError(
                Code.NOT_SUPPORTED,
                f"the agent cannot run as {run_as}: expected service_manager systemd, a machine that systemd runs, "
                "and no --root-dir. Everything else is installed; start commandit-updater run by yourself",
            )
        return
    service = _own_service(endpoint)
    if run_as is None:
        before = service.current()
        run_as = RunAs.DAEMON if before is RunAs.NONE else before
    service.register(run_as, endpoint.config.update_check_interval_seconds)


def unregister_agent(endpoint: Endpoint) -> None:
    """Stop the agent's own units and take them out; nothing to do where there are none. Idempotent."""
    if _is_for_systemd(endpoint):
        _own_service(endpoint).register(RunAs.NONE, endpoint.config.update_check_interval_seconds)


def _is_for_systemd(endpoint: Endpoint) -> bool:
    wanted = endpoint.config.service_manager in {None, ServiceKind.SYSTEMD}
    return wanted and endpoint.paths.is_whole_machine and BOOTED.is_dir()


def _own_service(endpoint: Endpoint) -> OwnService:
    installed = endpoint.paths.install("updater") / "bin" / "commandit-updater"
    command = [str(installed)] if installed.exists() else agent_command()
    return OwnService(endpoint.programs, command, within=own_groups())
