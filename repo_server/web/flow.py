"""When a connection is read: not while more requests wait than it may have in memory."""

from __future__ import annotations

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """uvicorn's, which reads on after each answer however many requests still wait for theirs."""

    held = False
    """Nothing is read until this is taken back, whoever wants to."""

    def resume_reading(self) -> None:
        """Read on, unless held."""
        if not self.held:
            super().resume_reading()
