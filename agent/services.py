"""Stops and starts installed components by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from agent.codes import Code
from agent.endpoint import Endpoint
from agent.errors import AgentError
from agent.manifest import InstalledComponent, load_manifest
from agent.ports import Unit
from agent.quarantine import ATTEMPTS, load_quarantine
from agent.units import unit_of_installed
from repo_server.core.package import ServiceKind


def stop_components(endpoint: Endpoint, names: Sequence[str]) -> tuple[AgentError, ...]:
    """Stop components (all if none is named), the last installed first; return what did not work."""
    return _each(endpoint, reversed(chosen(endpoint, names)), endpoint.services.stop)


def start_components(endpoint: Endpoint, names: Sequence[str]) -> tuple[AgentError, ...]:
    """Start components (all if none is named) that are not running; return what did not work."""
    quarantine, _ = load_quarantine(endpoint.paths.state / ATTEMPTS)
    for name in names:
        held = quarantine.holds(name)
        if held is not None:
            raise AgentError(
                Code.ROLLBACK_FAILED, f"{name} could not be taken back and waits for repair: {held.message}"
            )
    startable = [one for one in chosen(endpoint, names) if quarantine.holds(one.name) is None]
    return _each(endpoint, startable, endpoint.services.start)


def chosen(endpoint: Endpoint, names: Sequence[str]) -> list[InstalledComponent]:
    """Return installed components (all if none is named) in the order of their installation; raise NOT_SUPPORTED."""
    components = load_manifest(endpoint.paths.manifest).manifest.components
    unknown = sorted(set(names) - set(components))
    if unknown:
        there = ", ".join(sorted(components)) or "nothing"
        raise AgentError(Code.NOT_SUPPORTED, f"{', '.join(unknown)} is not installed; there is: {there}")
    found = [component for name, component in components.items() if not names or name in names]
    return sorted(found, key=lambda one: (one.installed_at, one.name))


def _each(
    endpoint: Endpoint, components: Iterable[InstalledComponent], act: Callable[[Unit], None]
) -> tuple[AgentError, ...]:
    failures = []
    for component in components:
        try:
            unit = unit_of_installed(endpoint.paths, component, endpoint.config.service_manager)
            if unit.service.kind is not ServiceKind.NONE:
                act(unit)
        except AgentError as error:
            failures.append(error)
    return tuple(failures)
