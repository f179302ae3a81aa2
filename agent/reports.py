"""Sends the spooled records to ``/v1/status``; what cannot be sent now stays for the next cycle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

import msgspec

from agent.client import Client
from agent.codes import Code
from agent.errors import AgentError, NetworkFailure
from agent.logs import Log
from agent.spool import Spool
from repo_server.core.wire import StatusRequest, UpdateRecord

BATCH = 100
_TOO_MUCH = frozenset({HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of the spool."""

    accepted: int = 0
    rejected: int = 0
    """Dropped, because the server will never take them; each is in the log."""
    left: int = 0
    failure: AgentError | None = None
    """Why records are left, or ``None``. Never a reason for a cycle to fail."""


def drain(spool: Spool, client: Client, device_id: str, log: Log) -> Drained:
    """Send everything that waits, oldest first, in batches. Raises ``LocalFailure`` only."""
    pending = spool.pending()
    for damage in pending.damaged:
        log.warning("a report in the spool was damaged and is lost", code=Code.STATE_DAMAGED, damage=damage)
    drained = Drained(left=len(pending.records))
    batches = [pending.records[start : start + BATCH] for start in range(0, len(pending.records), BATCH)]
    while batches:
        batch = batches.pop(0)
        try:
            accepted, rejected = _send(spool, client, device_id, batch, log)
        except NetworkFailure as error:
            if error.status in _TOO_MUCH and len(batch) > 1:
                # One record must not hold up the others for ever: find it.
                half = len(batch) // 2
                batches[:0] = [batch[:half], batch[half:]]
                continue
            return replace(drained, failure=error)
        gone = accepted + rejected
        drained = Drained(drained.accepted + accepted, drained.rejected + rejected, drained.left - gone)
    return drained


def _send(spool: Spool, client: Client, device_id: str, batch: Sequence[UpdateRecord], log: Log) -> tuple[int, int]:
    raw = tuple(msgspec.Raw(msgspec.json.encode(record)) for record in batch)
    answer = client.report(StatusRequest(device_id, raw))
    waiting = {str(record.record_id) for record in batch}
    accepted = waiting.intersection(answer.accepted)
    rejected = [item for item in answer.rejected if item.record_id in waiting - accepted]
    for item in rejected:
        log.error(
            "the server will never take a report; it was dropped",
            code=Code.BAD_RESPONSE,
            record_id=item.record_id,
            server_error=item.error_code,
            server_message=item.message,
        )
    for record_id in [*accepted, *(item.record_id for item in rejected if item.record_id is not None)]:
        spool.discard(record_id)
    return len(accepted), len(rejected)
