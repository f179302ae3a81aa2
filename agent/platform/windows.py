"""Components as Windows services (FR-CMP-001, FR-CMP-004).

A service starts at boot exactly while its component should run. It is not deleted when it is stopped: as long as
anybody, a services window say, holds a handle on a deleted one, its name cannot be used again.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.register import Register, service_command, service_name
from agent.platform.scm import STOPPED, ServiceControl, ServiceProcess, ServiceState
from agent.platform.win32 import ERROR_SERVICE_DOES_NOT_EXIST, Win32, WindowsFailure
from agent.platform.windows_family import Family
from agent.ports import Clock, Unit
from repo_server.core.package import ServiceKind

FORCE_SECONDS = 10.0
START_SECONDS = 30.0
"""How long a service may take to have a process; Windows itself gives one 30 s to report."""
PAUSE = 0.05
_OWN_EXIT_CODE = 1066


class WindowsManager:
    """The ``ServiceManager`` port for ``service.kind = "windows-service"``.

    Windows starts a service again that has failed. For the process that started it, it has ended all the same, as
    with launchd: a version that crashes every minute must not pass its probation.
    """

    def __init__(self, run_folder: Path, api: Win32, clock: Clock) -> None:
        self._register = Register(run_folder, "windows")
        self._api = api
        self._services = ServiceControl(api)
        self._clock = clock
        self._launched: dict[str, int] = {}
        """The process of each launch that is ours; 0: it had ended before it could be seen."""

    def start(self, unit: Unit) -> None:
        """Create or change the service, then start it; Windows starts it at each boot."""
        name, command = service_name(unit), service_command(unit)
        before = self._register.name_of(unit.component)
        with _as_agent_error(unit, Code.START_FAILED, "start"):
            if before is not None and before != name:
                self._end(before, unit)
                self._services.delete(before)
            there = self._services.state(name)
            if there is not None and there.state != STOPPED:
                if before == name:
                    self._launched[unit.component] = there.pid
                    return
                # Somebody else's of that name, perhaps with another command.
                self._end(name, unit)
            self._register.enter(unit.component, name)
            self._services.put(name, subprocess.list2cmdline(command))
            self._services.start(name)
            self._launched[unit.component] = self._until_started(unit, name)

    def stop(self, unit: Unit) -> None:
        """Send the stop control, wait, then ``TerminateProcess``; its process has ended when this returns."""
        names = {self._register.name_of(unit.component)}
        if unit.service.kind is ServiceKind.WINDOWS_SERVICE:
            names.add(unit.service.name)
        with _as_agent_error(unit, Code.STOP_FAILED, "stop"):
            for name in names - {None}:
                self._end(str(name), unit)
        self._launched.pop(unit.component, None)
        self._register.strike(unit.component)

    def remove(self, unit: Unit) -> None:
        """Stop it and delete the service, for a component that is uninstalled."""
        names = {self._register.name_of(unit.component), unit.service.name} - {None}
        self.stop(unit)
        with _as_agent_error(unit, Code.STOP_FAILED, "delete"):
            for name in names:
                self._services.delete(str(name))

    def running(self, unit: Unit) -> bool:
        """Whether its process is there, and still that of the launch that is ours."""
        with _as_agent_error(unit, Code.START_FAILED, "look at"):
            state = self._state(unit.component)
        if state is None or state.pid == 0 or state.state == STOPPED:
            return False
        return self._launched.get(unit.component, state.pid) == state.pid

    def wanted(self, component: str) -> bool:
        """Whether it was started and not stopped since."""
        return self._register.holds(component)

    def last_output(self, component: str) -> str:
        """Return how it ended, as far as Windows knows: a service has no standard output."""
        with suppress(WindowsFailure):
            state = self._state(component)
            if state is not None and state.state == STOPPED and state.exit_code:
                own = state.exit_code == _OWN_EXIT_CODE
                return f"its own exit code {state.own_exit_code}" if own else f"Windows error {state.exit_code}"
        return ""

    def _state(self, component: str) -> ServiceState | None:
        name = self._register.name_of(component)
        return None if name is None else self._services.state(name)

    def _until_started(self, unit: Unit, name: str) -> int:
        deadline = self._clock.monotonic() + START_SECONDS
        while True:
            state = self._services.state(name)
            if state is None:
                raise AgentError(Code.START_FAILED, f"{unit.component}: the service {name} was deleted while starting")
            if state.pid or state.state == STOPPED:
                return state.pid
            if self._clock.monotonic() >= deadline:
                raise AgentError(
                    Code.START_FAILED,
                    f"{unit.component}: the service {name} has no process after {START_SECONDS:.0f} s; "
                    "expected a service program, see the event log",
                )
            self._clock.sleep(PAUSE)

    def _end(self, name: str, unit: Unit) -> None:
        """Keep a service from the next boot, and return when its process has ended."""
        state = self._services.state(name)
        if state is None:
            return
        self._services.hold_back(name)
        # Held before it is asked: its files are free when the process has ended, not when the service has stopped.
        with self._services.process(state.pid) as process, Family(self._api, state.pid, os.getpid()) as family:
            deadline = self._clock.monotonic() + unit.service.stop_timeout_seconds
            asked = False
            while not (asked and self._has_stopped(name, process)):
                asked = asked or self._services.ask_to_stop(name)
                if self._clock.monotonic() >= deadline:
                    self._force(name, unit, process)
                    break
                self._clock.sleep(PAUSE)
            self._end_children(unit, family, deadline)

    def _end_children(self, unit: Unit, family: Family, deadline: float) -> None:
        """Give what the service started the rest of its time, then end it."""
        forced_until = max(deadline, self._clock.monotonic()) + FORCE_SECONDS
        while True:
            # Again, for one that was just seen may have started another.
            family.look()
            left = family.living_children()
            if not left:
                return
            now = self._clock.monotonic()
            if now >= forced_until:
                raise AgentError(
                    Code.STOP_FAILED,
                    f"{unit.component}: {len(left)} processes that its service started are still there "
                    f"{FORCE_SECONDS:.0f} s after TerminateProcess; see them in the task manager",
                )
            if now >= deadline:
                for process in left:
                    process.terminate()
            self._clock.sleep(PAUSE)

    def _force(self, name: str, unit: Unit, process: ServiceProcess | None) -> None:
        if process is not None:
            process.terminate()
        deadline = self._clock.monotonic() + FORCE_SECONDS
        while not self._has_stopped(name, process):
            if self._clock.monotonic() >= deadline:
                raise AgentError(
                    Code.STOP_FAILED,
                    f"{unit.component}: the service {name} is still there {FORCE_SECONDS:.0f} s after "
                    "TerminateProcess; see its process in the task manager",
                )
            self._clock.sleep(PAUSE)

    def _has_stopped(self, name: str, process: ServiceProcess | None) -> bool:
        state = self._services.state(name)
        return (state is None or state.state == STOPPED) and (process is None or process.ended())


@contextmanager
def _as_agent_error(unit: Unit, code: Code, doing: str) -> Iterator[None]:
    try:
        yield
    except WindowsFailure as error:
        hint = "; it was deleted by somebody" if error.errno == ERROR_SERVICE_DOES_NOT_EXIST else ""
        raise AgentError(
            code,
            f"{unit.component}: cannot {doing} the service {unit.service.name} "
            f"({' '.join(unit.service.command)}): {error.strerror}{hint}; see the event log",
        ) from error
