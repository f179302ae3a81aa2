"""``status.json``: what scripts, people and monitoring read (FR-STA-001, design §11)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from agent import durable
from agent.codes import Code


class OperationStatus(enum.StrEnum):
    """How the last operation ended."""

    NONE = "none"
    IN_PROGRESS = "in_progress"
    UP_TO_DATE = "up_to_date"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    RECOVERED = "recovered"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class ComponentVersion:
    """An installed component."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A release that failed too often and is skipped until a higher one appears."""

    name: str
    version: str
    attempts: int
    error_code: Code


@dataclass(frozen=True, slots=True)
class Status:
    """The keys of design §11, in their order. Change it with ``dataclasses.replace``."""

    last_check_time: datetime | None = None
    last_update_attempt_time: datetime | None = None
    last_update_success_time: datetime | None = None
    installed_components: tuple[ComponentVersion, ...] = ()
    assigned_channel: str | None = None
    last_operation_status: OperationStatus = OperationStatus.NONE
    last_error_code: Code = Code.OK
    last_error_message: str | None = None
    next_check_time: datetime | None = None
    metadata_expires: datetime | None = None
    quarantined: tuple[Quarantined, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return exactly the keys of design §11, with times as ISO 8601 in UTC."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        utc = {name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in values.items()}
        plain: dict[str, Any] = msgspec.to_builtins(utc)
        return plain


@dataclass(frozen=True, slots=True)
class LoadedStatus:
    """A status and what was wrong with its file (code STATE_DAMAGED), or ``None``."""

    status: Status
    damage: str | None


def load_status(path: Path) -> LoadedStatus:
    """Read the status; a damaged one is its previous copy or empty, and the damage is said.

    Raises ``LocalFailure`` when the system refuses to read it.
    """
    loaded = durable.load(path)
    if loaded.payload is None:
        return LoadedStatus(Status(), loaded.damage)
    try:
        return LoadedStatus(msgspec.convert(loaded.payload, Status), loaded.damage)
    except msgspec.ValidationError as error:
        return LoadedStatus(Status(), f"{path} has a form that is not known: {error}")


def save_status(path: Path, status: Status) -> None:
    """Replace the status atomically; raise ``LocalFailure``."""
    durable.save(path, status.to_json())
