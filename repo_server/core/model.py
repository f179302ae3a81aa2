"""The words of the product, as immutable values. One name per thing, here as in every file and answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime

from repo_server.core.version import Version

COMPONENT_PATTERN = r"[a-z][a-z0-9_]{0,31}"
"""A component's name (L4)."""

UPDATER = "updater"
"""The agent itself as a component; it comes last, so that one agent carries out a whole sequence (FR-SUP-001)."""

DEFAULT_COMPONENTS = ("service", "ui", "probe", UPDATER)
"""What a tree knows without saying so in ``repo.toml`` (L30)."""


class Os(enum.StrEnum):
    """Target operating systems (L4)."""

    WINDOWS = "windows"
    MACOS = "macos"
    LINUX = "linux"


class Arch(enum.StrEnum):
    """Target processor architectures (L4)."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class Channel(enum.StrEnum):
    """Release channels, most careful first (L12)."""

    STABLE = "stable"
    BETA = "beta"
    ALPHA = "alpha"


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An operating system on an architecture, written ``linux-amd64``."""

    os: Os
    arch: Arch

    def __str__(self) -> str:
        return f"{self.os}-{self.arch}"


@dataclass(frozen=True, slots=True)
class ReleaseId:
    """What a release is: one component's version for one platform. Immutable once published (L7)."""

    component: str
    version: Version
    platform: Platform

    def __str__(self) -> str:
        return f"{self.component}-{self.platform}-{self.version}"


@dataclass(frozen=True, slots=True)
class Requirement:
    """Another component at a version or higher (L13)."""

    name: str
    min_version: Version

    def __str__(self) -> str:
        return f"{self.name} >= {self.min_version}"


@dataclass(frozen=True, slots=True)
class ReleaseSignature:
    """One line of a ``.sig``: who signed, and the signature in base64 as it stands there (L11)."""

    key_id: str
    signature: str


@dataclass(frozen=True, slots=True)
class Meta:
    """What ``.meta`` says beside the name (L13). ``requires`` is the only part that decides anything."""

    requires: tuple[Requirement, ...] = ()
    release_notes_url: str | None = None
    title: str | None = None
    published_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Halt:
    """When the server pauses a ramp by itself (L14)."""

    failures: float = 0.05
    """Share of devices, 0 to 1."""
    min_devices: int = 20
    silent_after_seconds: int = 7200


@dataclass(frozen=True, slots=True)
class Rollout:
    """A ramp: which share of devices may have a release, and from when (L14)."""

    start: datetime
    from_share: float = 0.0
    """Share of devices at ``start``, 0 to 1."""
    to_share: float = 1.0
    duration_seconds: int = 0
    paused: bool = False
    """While paused nobody is admitted, whatever the share: it is the emergency brake."""
    seed: str | None = None
    """``None``: the version, so that the components of one release move together."""
    halt: Halt | None = None
    halted: bool = False
    """The server paused it because of failures; an operator resumes it."""


@dataclass(frozen=True, slots=True)
class Block:
    """A recall (L15): who said so, why and when."""

    reason: str
    by: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A release file whose digest and signatures were verified, with what its sidecars say."""

    id: ReleaseId
    path: str
    """Relative to the tree's root, with ``/``."""
    size: int
    """Bytes."""
    sha256: str
    signatures: tuple[ReleaseSignature, ...]
    """Only those that verified."""
    channel: Channel = Channel.STABLE
    meta: Meta = field(default_factory=Meta)
    rollout: Rollout | None = None
    block: Block | None = None

    @property
    def component(self) -> str:
        """The component's name."""
        return self.id.component

    @property
    def version(self) -> Version:
        """The release's version."""
        return self.id.version

    @property
    def platform(self) -> Platform:
        """The platform it is for."""
        return self.id.platform

    @property
    def requires(self) -> tuple[Requirement, ...]:
        """Which other components must be there."""
        return self.meta.requires

    @property
    def filename(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class FileState(enum.StrEnum):
    """Why a file is not offered: it is on its way, or something is wrong with it (L8)."""

    PENDING = "pending"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not offered, with a reason that has a name (L8, promise 3)."""

    path: str
    """Relative to the tree's root, escaped where it is not printable (L9); "" is the tree itself."""
    code: str
    message: str
    since: datetime
    state: FileState = FileState.PROBLEM


@dataclass(frozen=True, slots=True)
class Installed:
    """A component that a device has."""

    name: str
    version: Version | None
    """``None``: it said something that is not a version; anything offered is newer."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a decision needs to know about a device; everything else about it is a row in PostgreSQL."""

    platform: Platform
    components: tuple[Installed, ...] = ()
    configured_channel: Channel | None = None
    device_id: str | None = None
    """Normalised (L53)."""
    org_id: str | None = None
    site_id: str | None = None
    assigned_channel: Channel | None = None
    """Its own assignment, an operator's decision."""
