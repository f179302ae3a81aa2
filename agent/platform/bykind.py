"""One ``ServiceManager`` for components of several kinds: each goes to the manager of its own (L43)."""

from __future__ import annotations

from collections.abc import Mapping

from agent.codes import Code
from agent.errors import AgentError
from agent.ports import ServiceManager, Unit
from repo_server.core.package import ServiceKind


class ByKind:
    """Starts each component with its kind's manager, and stops it with all: its last version may have had another."""

    def __init__(self, managers: Mapping[ServiceKind, ServiceManager]) -> None:
        self._managers = managers

    def start(self, unit: Unit) -> None:
        """Start it; raise ``AgentError(NOT_SUPPORTED)`` for a kind that this machine does not have."""
        self._of(unit).start(unit)

    def stop(self, unit: Unit) -> None:
        """Stop whatever runs of it; the managers that know nothing of it do nothing."""
        for manager in self._managers.values():
            manager.stop(unit)

    def remove(self, unit: Unit) -> None:
        """Stop whatever runs of it, and take it out of every manager."""
        for manager in self._managers.values():
            manager.remove(unit)

    def running(self, unit: Unit) -> bool:
        """Whether its program runs, by its own kind's manager."""
        manager = self._managers.get(unit.service.kind)
        return manager is not None and manager.running(unit)

    def wanted(self, component: str) -> bool:
        """Whether some manager started it and has not stopped it since."""
        return any(manager.wanted(component) for manager in self._managers.values())

    def last_output(self, component: str) -> str:
        """Return what it wrote last, as the manager says that runs it."""
        managers = sorted(self._managers.values(), key=lambda manager: not manager.wanted(component))
        return next((said for manager in managers if (said := manager.last_output(component))), "")

    def _of(self, unit: Unit) -> ServiceManager:
        if unit.service.kind not in self._managers:
            known = ", ".join(sorted(self._managers))
            raise AgentError(
                Code.NOT_SUPPORTED,
                f"{unit.component} is run by {unit.service.kind}, which this endpoint does not have ({known})",
            )
        return self._managers[unit.service.kind]
