"""Compares installed components with the lists of their packages (design §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.codes import Code
from agent.contents import Compared, compare, listing_path, read_listing
from agent.endpoint import Endpoint
from agent.errors import AgentError, LocalFailure
from agent.logs import Severity
from agent.manifest import InstalledComponent
from agent.services import chosen

NOTHING = Compared()


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of one component's comparison."""

    name: str
    version: str
    compared: Compared = NOTHING
    failure: str | None = None
    """Why it could not be compared."""

    @property
    def same(self) -> bool:
        """Whether it was compared, and is as its package has it."""
        return self.failure is None and self.compared.same

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        found = self.compared
        return {
            "name": self.name,
            "version": self.version,
            "same": self.same,
            "missing": list(found.missing),
            "changed": [{"path": one.path, "why": one.why} for one in found.changed],
            "extra": list(found.extra),
            "preserved": list(found.preserved),
            "failure": self.failure,
        }

    def in_words(self) -> list[str]:
        """Return it for people, one line each."""
        kept = f", {len(self.compared.preserved)} preserved files not compared" if self.compared.preserved else ""
        if self.same:
            return [f"{self.name} {self.version}: as its package has it{kept}"]
        if self.failure is not None:
            return [f"{self.name} {self.version}: cannot be compared: {self.failure}"]
        found = self.compared
        count = len(found.missing) + len(found.changed) + len(found.extra)
        return [
            f"{self.name} {self.version}: differs in {count}{kept}; mend it with: reinstall {self.name}",
            *(f"  missing: {path}" for path in found.missing),
            *(f"  changed: {one.path} {one.why}" for one in found.changed),
            *(f"  extra: {path}" for path in found.extra),
        ]


def verify(endpoint: Endpoint, names: Sequence[str]) -> tuple[Verified, ...]:
    """Compare components (all if none is named); the lock must be held.

    Raises ``AgentError``: INTERRUPTED while an update waits for recovery, NOT_SUPPORTED for what is not installed.
    """
    found = endpoint.journal.read()
    if found.entry is not None or found.damage is not None:
        raise AgentError(Code.INTERRUPTED, "an update was interrupted; first run: commandit-updater recover")
    return tuple(_verify(endpoint, component) for component in chosen(endpoint, names))


def _verify(endpoint: Endpoint, component: InstalledComponent) -> Verified:
    name, version = component.name, str(component.version)
    try:
        listing = read_listing(listing_path(endpoint.paths, name, component.sha256))
        verified = Verified(name, version, compare(endpoint.paths.install(name), listing, component.package.preserve))
    except LocalFailure as error:
        endpoint.log.event(Severity.ERROR, error.message, code=error.code, component=name)
        return Verified(name, version, failure=error.message)
    if not verified.same:
        endpoint.log.warning("installed files differ from their package", component=name, found=verified.to_json())
    return verified
