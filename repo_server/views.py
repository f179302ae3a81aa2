"""What operators and load balancers are shown: the types of all answers that no agent reads (design §5)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from repo_server.core.model import Arch, Channel, FileState, Os
from repo_server.core.wire import Action, ComponentState, ReasonEntry, UpdateStatus


class PackageEntry(msgspec.Struct, frozen=True):
    """A release in the field names of the source schema (UpdatePackages), and what that does not have.

    Without ``published_by_user_id``: a tree knows keys, not users.
    """

    package_id: UUID
    """Made from component, platform and version, so it is the same on every server."""
    component_name: str
    version: str
    release_channel: Channel
    target_os: Os
    target_arch: Arch
    download_url: str
    file_hash_sha256: str
    signature_base64: str | None
    """``None``: a recalled release whose file is gone."""
    release_notes_url: str | None
    dependencies: dict[str, str]
    """Component → ``>=`` and its lowest version."""
    published_at: datetime | None
    is_active: bool
    """Not recalled."""
    path: str
    size: int
    title: str | None
    blocked_reason: str | None
    rollout: bool
    """Whether a ramp is in force."""


class PackagePage(msgspec.Struct, frozen=True):
    """Releases by component, platform and version."""

    packages: tuple[PackageEntry, ...]
    next: str | None
    """What ``after`` is for the next page; ``None``: this is the last."""
    catalogue: int


class ProblemEntry(msgspec.Struct, frozen=True):
    """A file that is not offered, and why."""

    path: str
    code: str
    message: str
    since: datetime
    state: FileState


class ConditionEntry(msgspec.Struct, frozen=True):
    """Something that is wrong with the server itself."""

    code: str
    message: str
    since: datetime


class ProblemPage(msgspec.Struct, frozen=True):
    """What is not as it should be: files by path, and the server itself (promise 3)."""

    problems: tuple[ProblemEntry, ...]
    pending: tuple[ProblemEntry, ...]
    server: tuple[ConditionEntry, ...]
    next: str | None
    catalogue: int


class RescanAnswer(msgspec.Struct, frozen=True):
    """``catalogue`` is the generation before the look that was asked for."""

    catalogue: int


class DeviceEntry(msgspec.Struct, frozen=True):
    """What the database knows of a device, in the field names of the source schema (devices)."""

    device_id: UUID
    org_id: str | None
    site_id: str | None
    name: str | None
    status: str | None
    os_type: str | None
    os_version: str | None
    cpu_architecture: str | None
    channel: str | None
    """The one that the device was on at its last check (L31)."""
    channel_source: str | None
    reported_channel: str | None
    """The one that its agent is configured for."""
    agent_service_version: str | None
    agent_ui_version: str | None
    agent_probe_version: str | None
    agent_updater_version: str | None
    agent_health_status: str | None
    agent_health_details: str | None
    agent_last_health_check: str | None
    last_agent_checkin: str | None
    components: list[ComponentState] | None
    attributes: dict[str, Any] | None
    previous_ids: list[str] | None
    shared_id_at: str | None
    """When two machines were last seen to use this id."""
    registered: bool
    """Whether it has a row in ``devices``, or is one that CommandIT, whose table that is, does not know."""


class DevicePage(msgspec.Struct, frozen=True):
    """Devices by id."""

    devices: tuple[DeviceEntry, ...]
    next: str | None


class AttemptEntry(msgspec.Struct, frozen=True):
    """One attempt at one component (agent_update_status_log of the source schema)."""

    record_id: UUID
    component_name: str
    trigger_source: str | None
    requested_version: str
    current_version: str | None
    status: UpdateStatus
    attempt_timestamp: str
    completion_timestamp: str | None
    error_code: str | None
    error_message: str | None
    details: dict[str, Any] | None
    received_at: str


class DeviceDetail(DeviceEntry, frozen=True):
    """A device, and its last attempts, newest first."""

    attempts: tuple[AttemptEntry, ...]
    seen_machines: list[str | None] | None
    """The last two that differed, if the id seems to be shared."""
    seen_versions: list[str | None] | None


class VersionCount(msgspec.Struct, frozen=True):
    """How many devices have a version of a component."""

    channel: str | None
    os_type: str | None
    cpu_architecture: str | None
    component: str
    version: str
    devices: int
    last_agent_checkin: str | None
    """Of the one that was seen last."""


class VersionCounts(msgspec.Struct, frozen=True):
    """Devices by channel, platform, component and version."""

    versions: tuple[VersionCount, ...]


class FailureSignature(msgspec.Struct, frozen=True):
    """Failed attempts with one component, code and message, without what differs from device to device."""

    component: str
    error_code: str | None
    pattern: str | None
    attempts: int
    devices: int
    first_at: datetime
    last_at: datetime
    example: str | None
    """A whole message."""
    versions: dict[str, int]
    """Requested version → attempts."""


class VersionOutcome(msgspec.Struct, frozen=True):
    """What became of the attempts at one version of a component."""

    component: str
    version: str
    attempts: int
    succeeded: int
    failed: int
    devices: int
    devices_failed: int


class EventEntry(msgspec.Struct, frozen=True):
    """Something that happened to a release, to rules or to credentials."""

    event_id: UUID
    occurred_at: datetime
    kind: str
    subject: str | None
    actor: str | None
    """Who, as far as a file or its owner says."""
    source: str | None
    """Where it was done."""
    details: dict[str, Any] | None


class EventPage(msgspec.Struct, frozen=True):
    """Events, newest first."""

    events: tuple[EventEntry, ...]
    next: str | None


class Failures(msgspec.Struct, frozen=True):
    """What went wrong since an instant."""

    since: datetime
    signatures: tuple[FailureSignature, ...]
    versions: tuple[VersionOutcome, ...]


class OfferEntry(msgspec.Struct, frozen=True):
    """What a device would be offered now."""

    name: str
    version: str
    action: Action


class Explanation(msgspec.Struct, frozen=True):
    """What a device would be offered now, and why."""

    device_id: UUID
    channel: Channel
    channel_source: str
    offers: tuple[OfferEntry, ...]
    reasons: tuple[ReasonEntry, ...]


class Health(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str


class ScanState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the look at the tree is."""

    state: str
    catalogue: int | None = None
    releases: int | None = None
    problems: int | None = None


class ConditionName(msgspec.Struct, frozen=True):
    """Something that is wrong, without the message: that may name paths and hosts."""

    code: str
    since: datetime


class Readiness(msgspec.Struct, frozen=True):
    """Whether agents are served, or why not yet, and what else is wrong."""

    ready: bool
    scan: ScanState
    database: dict[str, Any]
    conditions: tuple[ConditionName, ...]
