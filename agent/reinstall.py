"""Installs a component anew, also when its version is the latest already (FR-RIN-001, FR-RIN-002): PURE but for a list.

The server is asked as if the component was not there; everything else is a sequence like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from agent import keep
from agent.codes import Code
from agent.errors import AgentError, local_failure
from agent.manifest import Manifest
from agent.paths import Paths
from repo_server.core.errors import VersionInvalid
from repo_server.core.version import Version
from repo_server.core.wire import CheckResponse, Dependency, Update


@dataclass(frozen=True, slots=True)
class Reinstall:
    """What an operator asks for."""

    component: str
    clean: bool = False
    """Do not carry preserved files over (FR-RIN-002); until the sequence is committed they are in the backup."""

    def check_known(self, names: Collection[str]) -> None:
        """Raise ``AgentError`` (NOT_SUPPORTED) for a component that this endpoint neither has nor should have."""
        if self.component not in names:
            there = ", ".join(sorted(names)) or "nothing"
            raise AgentError(
                Code.NOT_SUPPORTED, f"{self.component} is no component of this endpoint; there is: {there}"
            )

    def narrowed(self, offers: Iterable[Update], installed: Mapping[str, Version]) -> tuple[Update, ...]:
        """Return the component's offer and those that it cannot do without, in the server's order."""
        offers = tuple(offers)
        by_name = {update.name: update for update in offers}
        wanted: set[str] = set()
        waiting = [self.component]
        while waiting:
            name = waiting.pop()
            if name in by_name and name not in wanted:
                wanted.add(name)
                waiting += [one.name for one in by_name[name].dependencies if not _has(installed, one)]
        return tuple(update for update in offers if update.name in wanted)

    def not_offered(self, response: CheckResponse) -> AgentError:
        """Return why nothing is done when the server has no release of the component for this device."""
        why = next(
            (f"{one.detail} ({one.code})" for one in response.reasons if one.name == self.component), "no reason"
        )
        return AgentError(
            Code.NOT_SUPPORTED,
            f"{self.component} stays as it is: the server offers no release of it on {response.channel}: {why}",
        )

    def left_behind(self, paths: Paths, manifest: Manifest) -> tuple[str, ...]:
        """Return the preserved files that will not be carried over; raise ``LocalFailure``."""
        component, live = manifest.components.get(self.component), paths.install(self.component)
        if not self.clean or component is None or not live.is_dir():
            return ()
        try:
            found = [path for path in keep.preserved(live, component.package.preserve) if not (live / path).is_dir()]
        except OSError as error:
            raise local_failure(error, f"list the preserved files of {live}") from error
        return tuple(found)


def _has(installed: Mapping[str, Version], needed: Dependency) -> bool:
    have = installed.get(needed.name)
    try:
        return have is not None and have >= Version(needed.min_version)
    except VersionInvalid:
        return False
