"""Sends the spooled records to ``/v1/status``; what cannot be sent now stays for the next cycle."""

from __future__ import annotations

from dataclasses import dataclass

from agent.client import Client
from agent.errors import AgentError
from agent.logs import Log
from agent.spool import Spool


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of the spool."""

    accepted: int
    rejected: int
    """Dropped, because the server will never take them; each is in the log."""
    left: int
    failure: AgentError | None = None
    """Why records are left, or ``None``. Never a reason for a cycle to fail."""


def drain(spool: Spool, client: Client, device_id: str, log: Log) -> Drained:
    """Send everything that waits, oldest first, in batches. Raises ``LocalFailure`` only."""
    raise NotImplementedError
