"""Programs that users' sessions start, and the agent only ends before it replaces them, on Linux (FR-CMP-007)."""

from __future__ import annotations

import sys

if not sys.platform.startswith("linux"):
    raise ImportError(f"these are programs as Linux shows them; expected another adapter on {sys.platform}")

import signal

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.proc import end_process, running_from
from agent.ports import Clock, Unit
from repo_server.core.package import ServiceKind

FORCE_SECONDS = 10.0
PAUSE = 0.05


class SessionPrograms:
    """The ``ServiceManager`` for ``service.kind = "none"``: nothing is ever started, and found is what runs.

    That is every program below the install folder of a component with ``session = true``, and nothing else. The next
    login starts it again, or a hook of the package does.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def start(self, unit: Unit) -> None:
        """Do nothing."""

    def stop(self, unit: Unit) -> None:
        """Send SIGTERM, wait ``stop_timeout_seconds``, then SIGKILL; raise ``AgentError(STOP_FAILED)``."""
        if unit.service.kind is not ServiceKind.NONE or not unit.service.session:
            return
        for number, seconds in (
            (signal.SIGTERM, unit.service.stop_timeout_seconds),
            (signal.SIGKILL, FORCE_SECONDS),
        ):
            if self._ended(unit, number, seconds):
                return
        raise AgentError(
            Code.STOP_FAILED,
            f"{unit.component}: {len(running_from(unit.folder))} programs of users' sessions are not stopped "
            f"{FORCE_SECONDS:.0f} s after SIGKILL; see those that run from {unit.folder}",
        )

    def remove(self, unit: Unit) -> None:
        """End them, for a component that is uninstalled."""
        self.stop(unit)

    def running(self, unit: Unit) -> bool:
        """Whether somebody runs it now."""
        return unit.service.session and bool(running_from(unit.folder))

    def wanted(self, component: str) -> bool:
        """Return ``False``: the agent starts none of them."""
        del component
        return False

    def last_output(self, component: str) -> str:
        """Return nothing: it went to the user."""
        del component
        return ""

    def _ended(self, unit: Unit, number: signal.Signals, seconds: float) -> bool:
        deadline, told = self._clock.monotonic() + seconds, set[tuple[int, int]]()
        # Again and again, for one that was just found may have started another.
        while found := running_from(unit.folder):
            for pid, ticks in found:
                if (pid, ticks) not in told:
                    told.add((pid, ticks))
                    end_process(pid, ticks, number)
            if self._clock.monotonic() >= deadline:
                return False
            self._clock.sleep(PAUSE)
        return True
