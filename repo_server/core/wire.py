"""What goes over HTTP between agent and server: the wire types, and their checks (design §5, FR-UPD-003, FR-SRV-001).

Unknown fields of a request are accepted, so that a newer agent can talk to an older server.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec

from repo_server.core.errors import FormatError, VersionInvalid
from repo_server.core.identity import normalise_device_id
from repo_server.core.model import Arch, Channel, Device, Installed, Os, Platform
from repo_server.core.version import Version

SECRET_HEADER = "X-CommandIT-Updater-Secret"  # noqa: S105 -- the header's name (NFR-SRV-010)
MAX_COMPONENTS = 64
MAX_ATTRIBUTES = 64
MAX_NAME_LENGTH = 64
MAX_ID_LENGTH = 128
MAX_RECORDS = 500
"""Update log records in one ``/v1/status`` request."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
_Short = Annotated[str, msgspec.Meta(max_length=64)]
_Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class RequestInvalid(FormatError):
    """A request is well-formed JSON but says something impossible; ``code`` goes to the client."""


class ComponentState(msgspec.Struct, frozen=True, gc=False):
    """A component that the device has; version "" if it wants one and has none."""

    name: _Name
    version: _Short


class HealthReport(msgspec.Struct, frozen=True, gc=False):
    """What the device says of its own health."""

    status: _Short
    details: Annotated[str, msgspec.Meta(max_length=4096)] = ""


class CheckRequest(msgspec.Struct, frozen=True, gc=False):
    """``POST /v1/check`` (FR-UPD-003)."""

    updater_version: _Short
    os: _Short
    arch: _Short
    release_channel: _Short
    components: Annotated[tuple[ComponentState, ...], msgspec.Meta(max_length=MAX_COMPONENTS)]
    device_id: _Id | None = None
    previous_ids: Annotated[tuple[_Id, ...], msgspec.Meta(max_length=16)] = ()
    org_id: _Id | None = None
    site_id: _Id | None = None
    attributes: Annotated[dict[_Name, Any], msgspec.Meta(max_length=MAX_ATTRIBUTES)] | None = None
    health: HealthReport | None = None


class Dependency(msgspec.Struct, frozen=True, gc=False):
    """A requirement in an offer."""

    name: str
    min_version: str


class SignatureEntry(msgspec.Struct, frozen=True, gc=False):
    """One release key's signature over the statement, base64."""

    key_id: str
    signature: str


class Action(enum.StrEnum):
    """What an offer means: to a higher version, or back from a recalled one."""

    UPDATE = "update"
    ROLLBACK = "rollback"


class Update(msgspec.Struct, frozen=True, omit_defaults=True):
    """One offer (FR-SRV-001). ``signature`` and ``key_id`` are the first of ``signatures``; ``size`` in bytes."""

    name: str
    version: str
    url: str
    hash_sha256: str
    signature: str
    key_id: str
    size: int
    signatures: tuple[SignatureEntry, ...]
    action: Action
    dependencies: tuple[Dependency, ...]
    path: str
    """Relative to the tree's root: a mirror has the file there."""
    release_notes_url: str | None = None


class ReasonEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a component is offered what it is offered, or nothing (promise 3)."""

    name: str
    code: str
    detail: str
    changes_at: datetime | None = None
    """When the answer next changes by itself, if that is known."""


class CheckResponse(msgspec.Struct, frozen=True):
    """The answer to ``POST /v1/check``."""

    updates: tuple[Update, ...]
    channel: str
    channel_source: str
    reasons: tuple[ReasonEntry, ...]
    next_check_seconds: int
    catalogue: int
    """Generation of the catalogue that the answer was made from."""


class UpdateStatus(enum.StrEnum):
    """How far an attempt came (agent_update_status_log of the source schema)."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    INSTALLING = "installing"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class UpdateRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt at one component; ``record_id`` is its idempotency key."""

    record_id: UUID
    component_name: Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
    trigger_source: Annotated[str, msgspec.Meta(max_length=50)]
    requested_version: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    status: UpdateStatus
    attempt_timestamp: _Instant
    current_version: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    completion_timestamp: _Instant | None = None
    error_code: Annotated[str, msgspec.Meta(max_length=64)] | int | None = None
    error_message: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    details: Annotated[dict[str, Any], msgspec.Meta(max_length=64)] | None = None


class StatusRequest(msgspec.Struct, frozen=True):
    """``POST /v1/status``. Each record is checked by itself, so that a bad one does not hold up the others."""

    device_id: _Id
    records: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_RECORDS)]


class RejectedRecord(msgspec.Struct, frozen=True):
    """A record that will never be accepted as it is; the sender drops it and says so in its log."""

    record_id: str | None
    error_code: str
    message: str


class StatusResponse(msgspec.Struct, frozen=True):
    """The answer to ``POST /v1/status``: what is in the database now, and what never will be."""

    accepted: tuple[str, ...]
    rejected: tuple[RejectedRecord, ...]


class ErrorBody(msgspec.Struct, frozen=True):
    """Every error's body (EH-SRV-001)."""

    error_code: str
    message: str


def device_of(request: CheckRequest) -> Device:
    """Return the device that a check describes; raise ``RequestInvalid`` or ``DeviceIdInvalid``."""
    names = [component.name for component in request.components]
    if len(set(names)) != len(names):
        raise RequestInvalid("duplicate_component", "components names a component twice; expected each once")
    return Device(
        platform=Platform(
            _member(Os, request.os, "os"),
            _member(Arch, request.arch, "arch"),
        ),
        components=tuple(Installed(item.name, _version(item.version)) for item in request.components),
        configured_channel=_member(Channel, request.release_channel, "channel") if request.release_channel else None,
        device_id=None if request.device_id is None else normalise_device_id(request.device_id),
        org_id=_scope_id(request.org_id),
        site_id=_scope_id(request.site_id),
    )


def _scope_id(text: str | None) -> str | None:
    return text.strip().lower() or None if text else None


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except VersionInvalid:
        return None


_Member = TypeVar("_Member", bound=enum.StrEnum)


def _member(kind: type[_Member], text: str, what: str) -> _Member:
    try:
        return kind(text)
    except ValueError:
        raise RequestInvalid(f"invalid_{what}", f"{what} {text!r} is not one of {', '.join(kind)}") from None
