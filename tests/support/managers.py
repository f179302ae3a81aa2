"""Every adapter of the port ``ServiceManager``, each on a machine of its own, with programs that really run."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from simulators.launchctl import LaunchdSimulator
from simulators.systemctl import SystemdSimulator
from simulators.windows import WindowsSimulator

from agent.platform.launchd import Launchd, LaunchdManager
from agent.platform.process import Launch, ProcessManager
from agent.platform.systemd import SystemdManager, SystemdPlaces
from agent.platform.windows import WindowsManager
from agent.ports import ServiceManager, Unit
from repo_server.core.package import Service, ServiceKind

ENVIRONMENT = {"PATH": os.environ["PATH"]}


class RealClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass
class QuickClock(RealClock):
    """Waits a twentieth of what it is told to, and believes that it was the whole."""

    ahead: float = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 20)
        self.ahead += seconds


@dataclass
class Bench:
    """A machine with one kind of service manager."""

    folder: Path
    kind: ServiceKind
    fresh: Callable[[], ServiceManager]
    """What the next process of the agent would work with."""
    known: Callable[[], list[str]] = list
    """What the system has registered."""
    known_as: str = "commandit-service"
    started: list[Unit] = field(default_factory=list)

    def unit(self, program: str, timeout: float = 5.0, name: str = "commandit-service") -> Unit:
        """Return a unit with a program, which replaces the one before in the install folder."""
        (self.folder / "bin").mkdir(exist_ok=True)
        new = self.folder / "bin" / "new"
        new.write_text(program)
        new.chmod(0o755)
        new.rename(self.folder / "bin" / "serve")
        unit = Unit("service", self.folder, Service(self.kind, name, ("bin/serve", "--port", "0"), timeout))
        self.started.append(unit)
        return unit

    def lines(self, name: str = "said") -> list[str]:
        """Return what the program noted in its folder."""
        path = self.folder / name
        return path.read_text().split() if path.exists() else []


@contextmanager
def process_bench(folder: Path) -> Iterator[Bench]:
    """Child processes: the real adapter on the real machine."""
    run = _run_folder(folder)
    managers: list[ProcessManager] = []

    def fresh() -> ProcessManager:
        managers.append(ProcessManager(run, Launch(ENVIRONMENT, lambda: str(uuid.uuid4()))))
        return managers[-1]

    bench = Bench(folder, ServiceKind.PROCESS, fresh, lambda: _names(run, "*.json"), "service.json")
    try:
        yield bench
    finally:
        for unit in bench.started:
            fresh().stop(unit)
            # Each reaps the children of its own.
            for manager in managers:
                manager.running(unit)


def launchd_on(folder: Path, simulator: LaunchdSimulator, clock: RealClock | None = None) -> LaunchdManager:
    """Return an adapter for a simulated launchd."""
    daemons = folder / "LaunchDaemons"
    daemons.mkdir(exist_ok=True)
    return LaunchdManager(_run_folder(folder), Launchd(daemons, simulator, clock or RealClock(), ENVIRONMENT))


@contextmanager
def launchd_bench(folder: Path) -> Iterator[Bench]:
    """Launchd, simulated down to ``launchctl``."""
    simulator = LaunchdSimulator()
    try:
        yield Bench(
            folder,
            ServiceKind.LAUNCHD,
            lambda: launchd_on(folder, simulator),
            lambda: _names(folder / "LaunchDaemons", "*"),
            "commandit-service.plist",
        )
    finally:
        simulator.power_off()


def windows_on(folder: Path, simulator: WindowsSimulator, clock: RealClock | None = None) -> WindowsManager:
    """Return an adapter for a simulated Windows."""
    return WindowsManager(_run_folder(folder), simulator.api(), clock or RealClock())


@contextmanager
def windows_bench(folder: Path) -> Iterator[Bench]:
    """Windows services, simulated down to the functions of advapi32 and kernel32."""
    simulator = WindowsSimulator(str(folder), ENVIRONMENT)
    try:
        yield Bench(
            folder, ServiceKind.WINDOWS_SERVICE, lambda: windows_on(folder, simulator), lambda: list(simulator.services)
        )
        assert simulator.open_handles == {}
    finally:
        simulator.power_off()


def systemd_on(folder: Path, simulator: SystemdSimulator, clock: RealClock | None = None) -> SystemdManager:
    """Return an adapter for a simulated systemd."""
    places = SystemdPlaces(folder / "journal", simulator.folder, folder / "started")
    return SystemdManager(places, simulator, clock or RealClock())


@contextmanager
def systemd_bench(folder: Path) -> Iterator[Bench]:
    """Systemd, simulated down to ``systemctl``; units are made from the command."""
    units = folder / "units"
    units.mkdir()
    simulator = SystemdSimulator(units)
    try:
        yield Bench(
            folder,
            ServiceKind.SYSTEMD,
            lambda: systemd_on(folder, simulator),
            lambda: _names(units, "*.service"),
            "commandit-service.service",
        )
    finally:
        simulator.power_off()


BENCHES = {"process": process_bench, "launchd": launchd_bench, "systemd": systemd_bench, "windows": windows_bench}


def _run_folder(folder: Path) -> Path:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    return run


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))
