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
_REFUSED_WHOLE = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
_MOST_REFUSED = 3


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
    drained, refused = Drained(left=len(pending.records)), 0
    batches = [pending.records[start : start + BATCH] for start in range(0, len(pending.records), BATCH)]
    while batches:
        batch = batches.pop(0)
        try:
            accepted, rejected = _send(spool, client, device_id, batch, log)
        except NetworkFailure as error:
            if error.status not in _REFUSED_WHOLE:
                return replace(drained, failure=error)
            if len(batch) > 1:
                # One record must not hold up the others for ever: find it.
                half = len(batch) // 2
                batches[:0] = [batch[:half], batch[half:]]
                continue
            if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                _drop(spool, str(batch[0].record_id), "too_large", error.message, log)
                accepted, rejected = 0, 1
            else:
                # It stays: the server may be mended. If it refuses whatever is sent, asking on is no use.
                drained, refused = replace(drained, failure=error), refused + 1
                if refused == _MOST_REFUSED:
                    return drained
                continue
        drained = replace(
            drained,
            accepted=drained.accepted + accepted,
            rejected=drained.rejected + rejected,
            left=drained.left - accepted - rejected,
        )
    return drained


def _send(spool: Spool, client: Client, device_id: str, batch: Sequence[UpdateRecord], log: Log) -> tuple[int, int]:
    """Send a batch and forget what the server took or never will; return how many of each."""
    raw = tuple(msgspec.Raw(msgspec.json.encode(record)) for record in batch)
    answer = client.report(StatusRequest(device_id, raw))
    waiting = {str(record.record_id) for record in batch}
    accepted = waiting.intersection(answer.accepted)
    rejected = {item.record_id: item for item in answer.rejected if item.record_id in waiting - accepted}
    for record_id in accepted:
        spool.discard(record_id)
    for record_id, item in rejected.items():
        _drop(spool, str(record_id), item.error_code, item.message, log)
    return len(accepted), len(rejected)


def _drop(spool: Spool, record_id: str, error: str, message: str, log: Log) -> None:
    log.error(
        "the server will never take a report; it was dropped",
        code=Code.BAD_RESPONSE,
        record_id=record_id,
        server_error=error,
        server_message=message,
    )
    spool.discard(record_id)
