"""``run/<component>.<manager>``: under which name a system's service manager knows a component (FR-CMP-001)."""

from __future__ import annotations

import json
from pathlib import Path

from agent.codes import Code
from agent.durable import replace_file, sync_folder
from agent.errors import AgentError, local_failure
from agent.platform.spoken import resolve
from agent.ports import Unit


class Register:
    """What was started and never stopped. An entry is written before a start and goes after a stop, durably.

    So a service is found again whatever happened to the agent, also when the next version gives it another name.
    """

    def __init__(self, folder: Path, manager: str) -> None:
        self._folder = folder
        self._manager = manager

    def holds(self, component: str) -> bool:
        """Whether there is an entry, be it readable or not."""
        return self._path(component).exists()

    def name_of(self, component: str) -> str | None:
        """Return the service's name; ``None`` if it was not started, or its entry is damaged."""
        try:
            raw = json.loads(self._path(component).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        name = raw.get("name") if isinstance(raw, dict) else None
        return name if isinstance(name, str) else None

    def enter(self, component: str, name: str) -> None:
        """Write an entry; raise ``LocalFailure``."""
        replace_file(self._path(component), json.dumps({"component": component, "name": name}).encode())

    def strike(self, component: str) -> None:
        """Remove an entry; one that is not there is removed already. Raises ``LocalFailure``."""
        remove_durably(self._path(component))

    def _path(self, component: str) -> Path:
        return self._folder / f"{component}.{self._manager}"


def remove_durably(path: Path) -> None:
    """Remove a file and make that durable; raise ``LocalFailure``."""
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise local_failure(error, f"remove {path}") from error


def service_name(unit: Unit) -> str:
    """Return the name under which a unit is registered; raise ``AgentError(START_FAILED)`` if it has none."""
    if unit.service.name is None:
        raise AgentError(
            Code.START_FAILED,
            f"{unit.component} has no service.name, which {unit.service.kind} needs; add it to package.toml",
        )
    return unit.service.name


def service_command(unit: Unit) -> list[str]:
    """Return a unit's command with the whole path of its program; raise ``AgentError(START_FAILED)``.

    Service managers look programs up in no PATH, and say little about one that they cannot start.
    """
    if not unit.service.command:
        raise AgentError(
            Code.START_FAILED,
            f"{unit.component} has no service.command, which {unit.service.kind} needs; add it to package.toml",
        )
    command = resolve(unit.service.command, unit.folder)
    program = Path(command[0])
    if not (program.is_absolute() and program.is_file()):
        raise AgentError(
            Code.START_FAILED,
            f"{unit.component}: cannot start {command[0]}: expected a program in {unit.folder}",
        )
    return command
