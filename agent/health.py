"""Does a component work? Checked after each start, and during probation (L43, FR-CMP-005)."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from agent.codes import Code
from agent.errors import AgentError
from agent.ports import Clock, Programs, ServiceManager, Unit
from repo_server.core.package import Health, HealthKind, ServiceKind

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
PROBE_SECONDS = 5.0
"""How long one try over the network may take."""
SETTLE_SECONDS = 1.0
"""A program whose only check is that it stays up must do so for this long."""


@dataclass(frozen=True, slots=True)
class HealthChecker:
    """Polls a component until it is healthy, then watches it through its probation."""

    services: ServiceManager
    programs: Programs
    clock: Clock

    def check(self, unit: Unit, health: Health) -> None:
        """Return when the component is healthy and stayed so; raise ``AgentError(HEALTH_FAILED)``."""
        if unit.service.kind is ServiceKind.NONE and health.kind is HealthKind.PROCESS:
            return
        if health.kind is HealthKind.PROCESS:
            health = replace(health, probation_seconds=max(health.probation_seconds, SETTLE_SECONDS))
        deadline = self.clock.monotonic() + health.timeout_seconds
        self._until_healthy(unit, health, deadline)
        if health.probation_seconds:
            self._stay_up(unit, health.probation_seconds)
            self._until_healthy(unit, health, self.clock.monotonic() + health.timeout_seconds)

    def _until_healthy(self, unit: Unit, health: Health, deadline: float) -> None:
        pause = FIRST_PAUSE
        while True:
            wrong = self._probe(unit, health, max(0.1, deadline - self.clock.monotonic()))
            if wrong is None:
                return
            left = deadline - self.clock.monotonic()
            if left <= 0:
                raise _failed(unit, f"not healthy within {health.timeout_seconds:g} s: {wrong}", self.services)
            self.clock.sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _stay_up(self, unit: Unit, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 0:
            self._must_run(unit)
            self.clock.sleep(min(left, 0.2))

    def _must_run(self, unit: Unit) -> None:
        if unit.service.kind is not ServiceKind.NONE and not self.services.running(unit):
            raise _failed(unit, "its program ended", self.services)

    def _probe(self, unit: Unit, health: Health, left: float) -> str | None:
        # Without this, the port of a program that is not ours could answer for one that has ended.
        self._must_run(unit)
        match health.kind:
            case HealthKind.PROCESS:
                return None
            case HealthKind.COMMAND:
                return self._command(unit, health, left)
            case HealthKind.HTTP:
                return _try(lambda: _http(health.url or "", min(left, PROBE_SECONDS)))
            case HealthKind.TCP:
                return _try(lambda: _tcp(health.port or 0, min(left, PROBE_SECONDS)))

    def _command(self, unit: Unit, health: Health, timeout: float) -> str | None:
        try:
            facts = {"COMMANDIT_COMPONENT": unit.component}
            finished = self.programs.run(health.command, unit.folder, facts, timeout)
        except OSError as error:
            return f"{health.command[0]} cannot be started: {error.strerror}"
        if finished.exit_code == 0:
            return None
        how = "took too long" if finished.exit_code is None else f"ended with {finished.exit_code}"
        return f"{health.command[0]} {how}: {finished.output[-300:]}"


def _try(probe: Callable[[], str | None]) -> str | None:
    try:
        return probe()
    except (OSError, http.client.HTTPException) as error:
        return f"{error.__class__.__name__}: {error}"


def _http(url: str, timeout: float) -> str | None:
    parts = urlsplit(url)
    host, target = parts.hostname or "", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        # Health is about this machine: its own certificate says nothing about it.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 -- see above
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
    try:
        connection.request("GET", target, headers={"Connection": "close"})
        status = connection.getresponse().status
    finally:
        connection.close()
    return None if 200 <= status < 300 else f"{url} answered {status}"  # noqa: PLR2004 -- HTTP's success


def _tcp(port: int, timeout: float) -> str | None:
    socket.create_connection(("127.0.0.1", port), timeout).close()
    return None


def _failed(unit: Unit, why: str, services: ServiceManager) -> AgentError:
    said = services.last_output(unit.component).rsplit("\n", 1)[-1][-300:]
    return AgentError(
        Code.HEALTH_FAILED,
        f"{unit.component} failed its health check: {why}" + (f"; it last said: {said}" if said else ""),
    )
