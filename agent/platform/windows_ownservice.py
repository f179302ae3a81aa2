"""The agent itself as a Windows service (FR-BST-002)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.ownservice import RunAs
from agent.platform.scm import STOPPED, ServiceControl
from agent.platform.win32 import Win32, WindowsFailure
from agent.platform.windows_service import NAME
from agent.platform.windows_waiting import END_SECONDS
from agent.ports import Clock

TEXT = "Keeps the components of CommandIT up to date, and recovers an update that was cut off."
STOP_SECONDS = END_SECONDS + 20.0
_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class WindowsOwnService:
    """Creates the agent's service, and takes it out. Idempotent; a killed one is repeated.

    It starts at boot, after those that Windows itself needs, and again whenever it failed. The first that it does is
    to recover: what an update had stopped does not start at boot (``WindowsManager``).
    """

    api: Win32
    clock: Clock
    command: Sequence[str]
    """How the agent is started."""
    own_pids: frozenset[int] = frozenset()
    """This process and its parent: if one of them is the service's, its end is not waited for, for it waits for us."""

    def current(self) -> RunAs:
        """Return how the agent is registered now."""
        with _as_agent_error("look at"):
            return RunAs.NONE if self._services.state(NAME) is None else RunAs.DAEMON

    def register(self, run_as: RunAs, interval_seconds: int) -> None:
        """Make the agent run so from now on and at each boot; ``NONE`` takes it out.

        Raises ``AgentError``: START_FAILED, STOP_FAILED, and NOT_SUPPORTED for ``timer``.
        """
        del interval_seconds
        if run_as is RunAs.TIMER:
            raise AgentError(
                Code.NOT_SUPPORTED,
                "on Windows the agent runs as daemon (a service) or none, not by a timer: expected --run-as daemon. "
                "With none, the task scheduler can start: commandit-updater once --if-due",
            )
        if run_as is RunAs.NONE:
            self._take_out()
            return
        line = self._line
        with _as_agent_error("register"):
            before = self._services.command_line(NAME)
            self._services.put(NAME, line)
            self._services.describe(NAME, TEXT)
            if before is not None and before != line:
                self._stop()
            self._services.start(NAME)

    def refresh(self, interval_seconds: int) -> bool:
        """Have the service start this version's command line, if it has another; whether it starts at boot stays.

        Idempotent. Raises ``AgentError(START_FAILED)``.
        """
        del interval_seconds
        with _as_agent_error("refresh"):
            if self._services.command_line(NAME) in {None, self._line}:
                return False
            self._services.point(NAME, self._line)
            self._services.describe(NAME, TEXT)
        return True

    @property
    def _line(self) -> str:
        return subprocess.list2cmdline([*self.command, "service"])

    def _take_out(self) -> None:
        with _as_agent_error("remove"):
            state = self._services.state(NAME)
            if state is None:
                return
            self._services.hold_back(NAME)
            if state.pid in self.own_pids:
                # It goes when its process has ended; nothing of it comes back.
                self._services.delete(NAME)
                self._services.ask_to_stop(NAME)
                return
            self._stop()
            self._services.delete(NAME)

    def _stop(self) -> None:
        state = self._services.state(NAME)
        if state is None or state.state == STOPPED or state.pid in self.own_pids:
            return
        with self._services.process(state.pid) as process:
            deadline = self.clock.monotonic() + STOP_SECONDS
            asked = False
            while True:
                asked = asked or self._services.ask_to_stop(NAME)
                if asked and (process is None or process.ended()):
                    return
                if self.clock.monotonic() >= deadline:
                    # Safe at any moment: whoever comes next recovers.
                    if process is not None:
                        process.terminate()
                    return
                self.clock.sleep(_PAUSE)

    @property
    def _services(self) -> ServiceControl:
        return ServiceControl(self.api)


@contextmanager
def _as_agent_error(doing: str) -> Iterator[None]:
    try:
        yield
    except WindowsFailure as error:
        raise AgentError(
            Code.START_FAILED,
            f"the agent is installed, but Windows does not let it {doing} the service {NAME}: {error.strerror}. "
            "Mend that, then run the same command again",
        ) from error
