"""Update now: what may be asked of a resident agent from outside, and what it answers (FR-UPD-001B): PURE.

A caller connects, sends ``REQUEST``, reads one line, and both hang up. Nothing else can be asked. Standard library
only: the daemon lives on this.
"""

from __future__ import annotations

SOCKET = "update.sock"
"""The Unix socket's name in the run folder."""
REQUEST = b"check\n"
MAX_REQUEST = 64
"""Bytes of a request that are read at all."""
PEER_SECONDS = 5.0
"""How long a caller may take for its request."""
MOST_PEERS = 4
"""Callers that are listened to at once; others wait until one of them is done."""
SPACING = 30.0
"""Seconds between two checks that are made for callers."""

ACCEPTED = b"accepted\n"
RUNNING = b"already running\n"
NOT_UNDERSTOOD = b"not understood; expected: check\n"


class Gate:
    """Lets one request through in ``SPACING`` seconds, and none while a cycle runs (FR-UPD-009)."""

    __slots__ = ("_last",)

    def __init__(self, last: float | None = None) -> None:
        self._last = last

    def answer(self, request: bytes, now: float, *, busy: bool) -> bytes:
        """Return what the caller is told; ``ACCEPTED`` obliges whoever asks to make a check. ``now`` in seconds."""
        if request.strip() != REQUEST.strip():
            return NOT_UNDERSTOOD
        if busy:
            return RUNNING
        # A clock that was set back must not shut the gate.
        if self._last is not None and 0 <= now - self._last < SPACING:
            return f"too soon, in {SPACING - (now - self._last):.0f} s\n".encode()
        self._last = now
        return ACCEPTED
