"""HTTP as the agent needs it: bounded in time and size, and only to the configured hosts (FR-UPD-002, NFR-SEC-001)."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    connect: float = 10.0
    read: float = 30.0
    """Between two pieces of an answer."""
    headers: float = 60.0
    """From the end of the request to the end of the answer's headers."""
    exchange: float = 120.0
    """A whole small answer; downloads have their own bounds."""


class Transport:
    """Sends requests to the configured hosts and no others; the secret goes to the servers only, never to mirrors."""

    def __init__(
        self,
        servers: Sequence[str],
        mirrors: Sequence[str] = (),
        *,
        secret: str | None = None,
        timeouts: Timeouts = Timeouts(),
        pinned_spki: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        user_agent: str = "commandit-updater",
    ) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Close every connection."""
        raise NotImplementedError
