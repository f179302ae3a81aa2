"""What became of a sequence: its final records, and whose fault it was. PURE."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from agent.codes import Code
from agent.journal import Entry, Failure, Item
from agent.plan import Skipped
from agent.quarantine import Quarantine
from repo_server.core.version import Version
from repo_server.core.wire import UpdateRecord, UpdateStatus

MAX_MESSAGE = 4000
_THE_MACHINES = frozenset({Code.PERMISSION, Code.IO})
"""Before a component was touched, this disk's fault and no release's. After that, trying again costs a stop."""
_THE_SENDERS = frozenset(
    {
        Code.HASH_MISMATCH,
        Code.SIZE_MISMATCH,
        Code.SIGNATURE_INVALID,
        Code.DOWNGRADE_REFUSED,
        Code.BELOW_FLOOR,
        Code.NOT_REQUESTED,
        Code.OFFER_INVALID,
        Code.METADATA_EXPIRED,
    }
)
"""What a server or mirror sent was wrong, not the release with this digest: it must install once that is mended."""


def final_records(entry: Entry, now: datetime) -> tuple[UpdateRecord, ...]:
    """Return the one final record of each attempt (FR-RBK-001, promise 3)."""
    return tuple(_record(entry, item, now) for item in entry.sequence.items)


def skipped_record(
    skipped: Skipped, record_id: str, trigger: str, current: Version | None, now: datetime
) -> UpdateRecord:
    """Return the record that says, once, that a release is not tried any more."""
    return UpdateRecord(
        record_id=UUID(record_id),
        component_name=skipped.update.name,
        trigger_source=trigger,
        requested_version=skipped.update.version,
        current_version=None if current is None else str(current),
        status=UpdateStatus.SKIPPED,
        attempt_timestamp=now,
        completion_timestamp=now,
        error_code=skipped.code.name,
        error_message=skipped.message[:MAX_MESSAGE],
    )


def judged(quarantine: Quarantine, entry: Entry) -> Quarantine:
    """Return the quarantine after a sequence that went back: only a release at fault keeps its attempt."""
    items, attempt = entry.sequence.items, entry.sequence.attempt_id
    quarantine = quarantine.holding(entry.critical) if entry.critical else quarantine
    if entry.failure is None or entry.failure.code == Code.INTERRUPTED:
        # Counted before it started, if it came that far: a release that takes the machine down is not excused.
        return quarantine
    code = entry.failure.code
    excused = code.is_transient or code in _THE_SENDERS or (code in _THE_MACHINES and not entry.went_back)
    guilty = tuple(item for item in items if item.component == entry.failure.component and not excused)
    quarantine = quarantine.excusing(tuple(item for item in items if item not in guilty), attempt)
    return quarantine.counting(guilty, attempt, code)


def _record(entry: Entry, item: Item, now: datetime) -> UpdateRecord:
    status, code, message = _verdict(entry, item)
    details = {
        "attempt_id": entry.sequence.attempt_id,
        "action": str(item.action),
        "sha256": item.sha256,
        "sequence": [one.component for one in entry.sequence.items],
    }
    return UpdateRecord(
        record_id=UUID(item.record_id),
        component_name=item.component,
        trigger_source=entry.sequence.trigger,
        requested_version=item.version,
        current_version=item.from_version,
        status=status,
        attempt_timestamp=entry.sequence.started_at,
        completion_timestamp=now,
        error_code=None if code is Code.OK else code.name,
        error_message=message and message[:MAX_MESSAGE],
        details=details,
    )


def _verdict(entry: Entry, item: Item) -> tuple[UpdateStatus, Code, str | None]:
    critical = next((failure for failure in entry.critical if failure.component == item.component), None)
    if critical is not None:
        return UpdateStatus.FAILED, Code.ROLLBACK_FAILED, critical.message
    failure = entry.failure
    if failure is None:
        return UpdateStatus.SUCCESS, Code.OK, None
    if failure.component in {None, item.component}:
        return UpdateStatus.FAILED, failure.code, failure.message
    why = f"{item.component} went back because {failure.component} failed: {failure.message}"
    return UpdateStatus.CANCELLED, Code.SEQUENCE_ROLLED_BACK, why


def summary(entry: Entry) -> Failure | None:
    """Return the one failure that stands for a sequence, the worst first; ``None``: it succeeded."""
    if entry.critical:
        worst = entry.critical[0]
        return Failure(worst.component, Code.ROLLBACK_FAILED, worst.message)
    return entry.failure
