"""Answers that are ready in one turn of the event loop, written one after the other at its end (design §9).

A write wakes whoever reads, which takes longer than the rest of a check. Written together, the answers of a turn find
their reader awake.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Turn:
    """Collects answers until the event loop has looked at every connection that has something to read."""

    _waiting: list[tuple[asyncio.Transport, bytes]] = field(default_factory=list)

    def write(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, answer: bytes) -> None:
        """Write soon; what the loop calls afterwards finds it written."""
        if not self._waiting:
            loop.call_soon(self.end)
        self._waiting.append((transport, answer))

    def end(self) -> None:
        """Write everything now."""
        waiting, self._waiting = self._waiting, []
        for transport, answer in waiting:
            if not transport.is_closing():
                transport.write(answer)
