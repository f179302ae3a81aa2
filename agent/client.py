"""Talks to the repository server: ``/v1/check`` and ``/v1/status`` (FR-UPD-002 to FR-UPD-004, EH-CLI-001)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.http import Transport
from repo_server.core.wire import CheckRequest, CheckResponse, StatusRequest, StatusResponse


@dataclass(frozen=True, slots=True)
class Retries:
    """How often within one cycle, and how long between; the daemon's own backoff comes on top."""

    rounds: int = 3
    first_seconds: float = 1.0
    longest_seconds: float = 30.0


class Client:
    """Asks the configured servers in order; the first that answers counts."""

    def __init__(
        self,
        transport: Transport,
        servers: Sequence[str],
        *,
        sleep: Callable[[float], None],
        random: Callable[[], float],
        now: Callable[[], datetime],
        retries: Retries = Retries(),
    ) -> None:
        raise NotImplementedError

    def check(self, request: CheckRequest) -> CheckResponse:
        """Ask what to install; raise ``NetworkFailure`` when no server gives a usable answer."""
        raise NotImplementedError

    def report(self, request: StatusRequest) -> StatusResponse:
        """Send update records; raise ``NetworkFailure``."""
        raise NotImplementedError
