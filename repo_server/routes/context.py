"""What the routes are given: the parts of a running server, and the ports behind which the rest stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from repo_server.access.guard import Guard
from repo_server.answers import PACKAGES, Answers
from repo_server.core.channels import AssignedChannel
from repo_server.core.wire import CheckRequest, UpdateRecord
from repo_server.telemetry.conditions import Conditions
from repo_server.telemetry.exposition import Exposition
from repo_server.traffic import Traffic
from repo_server.tree.live import Live
from repo_server.web.files import FileSender
from repo_server.web.http import Call


class RecordsUnavailable(Exception):
    """Records could not be stored now; the sender keeps them and tries again."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that the database will never take, and why."""

    record: UpdateRecord
    code: str
    message: str


class CheckIns(Protocol):
    """Remembers that a device asked. Never blocks, never fails: a check is answered whatever the database does."""

    def put(
        self,
        device_id: str,
        previous_ids: Sequence[str],
        request: CheckRequest,
        channel: AssignedChannel,
        now: datetime,
    ) -> None:
        """Take a check-in, with the channel that was answered for; a newer one of the same device replaces it."""


class Records(Protocol):
    """Keeps update log records."""

    async def store(self, device_id: str, records: Sequence[UpdateRecord], now: datetime) -> tuple[Rejected, ...]:
        """Return when every record is durable or rejected; idempotent by ``record_id``.

        Raise ``RecordsUnavailable`` when that cannot be said.
        """


class Devices(Protocol):
    """Reads what is known of devices."""

    async def page(self, wanted: Mapping[str, Any], after: str | None, limit: int) -> list[dict[str, Any]]:
        """Return devices by id, after one; ``wanted`` has filters by name. Raise ``RecordsUnavailable``."""

    async def get(self, device_id: str, attempts: int) -> dict[str, Any] | None:
        """Return one device with its last attempts; raise ``RecordsUnavailable``."""

    async def versions(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Count devices by channel, platform, component and version; raise ``RecordsUnavailable``."""

    async def failures(
        self, since: datetime, component: str | None, version: str | None, limit: int
    ) -> dict[str, list[dict[str, Any]]]:
        """Return failed attempts by signature, and attempts by version; raise ``RecordsUnavailable``."""

    async def events(self, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
        """Return what happened, newest first; ``wanted`` has filters by name. Raise ``RecordsUnavailable``."""


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of a running server that answer requests."""

    root: Path
    live: Live
    answers: Answers
    guard: Guard
    sender: FileSender
    check_ins: CheckIns
    records: Records
    devices: Devices
    rescan: Callable[[str | None], None]
    """Asks for another look at a path, or with ``None`` at everything."""
    clock: Callable[[], datetime]
    database_state: Callable[[], dict[str, Any]]
    conditions: Conditions
    traffic: Traffic
    exposition: Exposition
    base_url: str | None = None
    package_base_url: str | None = None
    x_accel: str | None = None
    """Location of an nginx in front that sends release files."""
    public_metrics: bool = False

    def packages_at(self, call: Call) -> str:
        """Return what the URLs of release files start with in an answer; raise ``HttpError``."""
        if self.package_base_url is not None:
            return f"{self.package_base_url.rstrip('/')}/"
        return f"{call.base(self.base_url)}{PACKAGES}"
