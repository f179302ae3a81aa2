"""From a package to the program that is started and stopped."""

from __future__ import annotations

from dataclasses import replace

from agent.codes import Code
from agent.errors import AgentError
from agent.manifest import InstalledComponent
from agent.paths import Paths
from agent.ports import Unit
from repo_server.core.package import PackageManifest, ServiceKind

SUPPORTED = frozenset({ServiceKind.PROCESS, ServiceKind.SYSTEMD, ServiceKind.NONE})
"""Service managers that this version drives."""


def unit_of(paths: Paths, package: PackageManifest, run_by: ServiceKind | None) -> Unit:
    """Return a package's program; ``run_by`` overrides who runs it. Raise ``AgentError(NOT_SUPPORTED)``."""
    service, component = package.service, package.id.component
    if run_by is not None and service.kind is not ServiceKind.NONE:
        service = replace(service, kind=run_by)
    if service.kind not in SUPPORTED:
        known = ", ".join(sorted(SUPPORTED))
        raise AgentError(
            Code.NOT_SUPPORTED,
            f"{package.id} is run by {service.kind!r}, which this agent does not drive ({known}); "
            "a package with a command can be run with service_manager = process",
        )
    if service.kind is ServiceKind.SYSTEMD and not paths.is_whole_machine:
        raise AgentError(
            Code.NOT_SUPPORTED,
            f"{package.id} is run by systemd, which knows nothing of an endpoint below {paths.root_dir}; "
            "a package with a command can be run with service_manager = process",
        )
    if service.kind is ServiceKind.PROCESS and not service.command:
        raise AgentError(Code.NOT_SUPPORTED, f"{package.id} has no service.command, so it cannot be run as a process")
    return Unit(component, paths.install(component), service)


def unit_of_installed(paths: Paths, component: InstalledComponent, run_by: ServiceKind | None) -> Unit:
    """Return an installed component's program."""
    return unit_of(paths, component.package, run_by)
