"""From a package to the program that is started and stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.codes import Code
from agent.errors import AgentError
from agent.manifest import InstalledComponent
from agent.paths import Paths
from agent.ports import Unit
from repo_server.core.model import Os
from repo_server.core.package import PackageManifest, ServiceKind

SUPPORTED: Mapping[Os, frozenset[ServiceKind]] = {
    Os.LINUX: frozenset({ServiceKind.PROCESS, ServiceKind.SYSTEMD, ServiceKind.NONE}),
    Os.MACOS: frozenset({ServiceKind.LAUNCHD, ServiceKind.NONE}),
    Os.WINDOWS: frozenset({ServiceKind.WINDOWS_SERVICE, ServiceKind.NONE}),
}
"""Service managers that this version drives."""
OF_THE_SYSTEM = frozenset({ServiceKind.SYSTEMD, ServiceKind.LAUNCHD, ServiceKind.WINDOWS_SERVICE})
"""Those that know one machine only, and no endpoint in a folder."""
NAMED = frozenset({ServiceKind.LAUNCHD, ServiceKind.WINDOWS_SERVICE})
"""Those for which the agent writes the registration from the service's name and command."""


def unit_of(paths: Paths, package: PackageManifest, run_by: ServiceKind | None) -> Unit:
    """Return a package's program; ``run_by`` overrides who runs it. Raise ``AgentError(NOT_SUPPORTED)``."""
    service, component, system = package.service, package.id.component, package.id.platform.os
    if run_by is not None and service.kind is not ServiceKind.NONE:
        service = replace(service, kind=run_by)
    instead = "a package with a command can be run with service_manager = process"
    if service.kind not in SUPPORTED[system]:
        known = ", ".join(sorted(SUPPORTED[system]))
        hint = f"; {instead}" if ServiceKind.PROCESS in SUPPORTED[system] else ""
        raise AgentError(
            Code.NOT_SUPPORTED,
            f"{package.id} is run by {service.kind!r}, which this agent does not drive on {system} ({known}){hint}",
        )
    if service.kind in OF_THE_SYSTEM and not paths.is_whole_machine:
        hint = f"; {instead}" if ServiceKind.PROCESS in SUPPORTED[system] else "; run it without --root-dir"
        raise AgentError(
            Code.NOT_SUPPORTED,
            f"{package.id} is run by {service.kind}, which knows nothing of an endpoint below {paths.root_dir}{hint}",
        )
    if service.kind is ServiceKind.PROCESS and not service.command:
        raise AgentError(Code.NOT_SUPPORTED, f"{package.id} has no service.command, so it cannot be run as a process")
    if service.kind in NAMED and not (service.name and service.command):
        raise AgentError(
            Code.NOT_SUPPORTED, f"{package.id} needs service.name and service.command to be run by {service.kind}"
        )
    return Unit(component, paths.install(component), service)


def unit_of_installed(paths: Paths, component: InstalledComponent, run_by: ServiceKind | None) -> Unit:
    """Return an installed component's program."""
    return unit_of(paths, component.package, run_by)
