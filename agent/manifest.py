"""``manifest.json``: which components are installed, and how to stop and check each (FR-CFG-003)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from agent import durable
from repo_server.core.errors import FormatError
from repo_server.core.package import PackageManifest, parse_package_toml
from repo_server.core.version import Version


@dataclass(frozen=True, slots=True)
class InstalledComponent:
    """One component as it was committed."""

    name: str
    version: Version
    path: str
    """The install folder, absolute on the endpoint."""
    sha256: str
    """Of the package file it came from."""
    package_toml: str
    """The text inside that package, so that the component can be stopped and checked without it."""
    installed_at: datetime
    record_id: str = ""
    """Of the attempt that installed it, so that installing the same package again is another; "": not known."""

    @property
    def package(self) -> PackageManifest:
        """The parsed ``package.toml``; it was valid when it was committed, and is readable since it was loaded."""
        return parse_package_toml(self.package_toml.encode(), admitted=True)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that is installed. Replaced whole."""

    components: Mapping[str, InstalledComponent] = field(default_factory=lambda: MappingProxyType({}))

    def version_of(self, name: str) -> Version | None:
        """Return a component's installed version."""
        component = self.components.get(name)
        return None if component is None else component.version

    def having(self, *components: InstalledComponent) -> Self:
        """Return a manifest with these components added or replaced."""
        return type(self)(MappingProxyType({**self.components, **{item.name: item for item in components}}))

    def without(self, *names: str) -> Self:
        """Return a manifest without these components."""
        kept = {name: component for name, component in self.components.items() if name not in names}
        return type(self)(MappingProxyType(kept))


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """A manifest and what was wrong with its file (code STATE_DAMAGED), or ``None``."""

    manifest: Manifest
    damage: str | None


def load_manifest(path: Path) -> LoadedManifest:
    """Read the manifest; a damaged one is its previous copy or empty, and the damage is said.

    Raises ``LocalFailure`` when the system refuses to read it.
    """
    loaded = durable.load(path)
    if loaded.payload is None:
        return LoadedManifest(Manifest(), loaded.damage)
    try:
        components = [_component(item) for item in loaded.payload["components"]]
    except (KeyError, TypeError, ValueError) as error:
        return LoadedManifest(Manifest(), f"{path} has a form that is not known: {type(error).__name__}: {error}")
    return LoadedManifest(Manifest().having(*components), loaded.damage)


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically; raise ``LocalFailure``."""
    entries = [
        {
            "name": item.name,
            "version": str(item.version),
            "path": item.path,
            "sha256": item.sha256,
            "installed_at": item.installed_at.isoformat(),
            "package_toml": item.package_toml,
            "record_id": item.record_id,
        }
        for _, item in sorted(manifest.components.items())
    ]
    durable.save(path, {"components": entries})


def _component(item: dict[str, Any]) -> InstalledComponent:
    component = InstalledComponent(
        name=str(item["name"]),
        version=Version(item["version"]),
        path=str(item["path"]),
        sha256=str(item["sha256"]),
        package_toml=str(item["package_toml"]),
        installed_at=datetime.fromisoformat(item["installed_at"]),
        record_id=str(item.get("record_id", "")),
    )
    try:
        package = component.package
    except FormatError as error:
        raise ValueError(f"package.toml of {component.name}: {error.message}") from error
    if package.id.component != component.name:
        raise ValueError(f"package.toml of {component.name} is of {package.id.component}")
    return component
