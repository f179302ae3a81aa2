"""``manifest.json``: which components are installed, and how to stop and check each (FR-CFG-003)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Self

from repo_server.core.package import PackageManifest
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

    @property
    def package(self) -> PackageManifest:
        """The parsed ``package.toml``."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that is installed. Replaced whole."""

    components: Mapping[str, InstalledComponent] = field(default_factory=lambda: MappingProxyType({}))

    def version_of(self, name: str) -> Version | None:
        """Return a component's installed version."""
        raise NotImplementedError

    def having(self, *components: InstalledComponent) -> Self:
        """Return a manifest with these components added or replaced."""
        raise NotImplementedError

    def without(self, *names: str) -> Self:
        """Return a manifest without these components."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """A manifest and what was wrong with its file (code STATE_DAMAGED), or ``None``."""

    manifest: Manifest
    damage: str | None


def load_manifest(path: Path) -> LoadedManifest:
    """Read the manifest; a damaged one is its previous copy or empty, and the damage is said."""
    raise NotImplementedError


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically; raise ``LocalFailure``."""
    raise NotImplementedError
