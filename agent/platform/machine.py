"""What the engine gets of the system it runs on: each port by the adapter for that system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.codes import Code
from agent.errors import AgentError
from agent.paths import Paths
from agent.platform.bykind import ByKind
from agent.platform.identity import (
    LinuxIdentity,
    MacIdentity,
    NoIdentity,
    WindowsIdentity,
    gethostuuid,
    registry_text,
)
from agent.platform.sessions import ConsoleSessions, LogindSessions, NoSessions, console_owner
from agent.ports import Clock, Disk, Identity, Programs, ServiceManager, Sessions
from repo_server.core.model import Os
from repo_server.core.package import ServiceKind


@dataclass(frozen=True, slots=True)
class Given:
    """What adapters work with, and only a composition root can give."""

    paths: Paths
    clock: Clock
    environment: Mapping[str, str]
    new_id: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Machine:
    """The ports of one machine."""

    disk: Disk
    programs: Programs
    services: ServiceManager
    sessions: Sessions = field(default_factory=NoSessions)
    identity: Identity = field(default_factory=NoIdentity)


# Each system's adapters are imported where they are chosen: a cycle on one pays nothing for the others.


def machine_of(system: Os, given: Given) -> Machine:
    """Return the ports of a machine; raise ``AgentError(NOT_SUPPORTED)`` if this is not such a one."""
    return {Os.LINUX: _linux, Os.MACOS: _macos, Os.WINDOWS: _windows}[system](given)


def _linux(given: Given) -> Machine:
    from agent.platform.linux import LinuxDisk
    from agent.platform.process import Launch, ProcessManager
    from agent.platform.programs import LocalPrograms
    from agent.platform.sessionprograms import SessionPrograms
    from agent.platform.systemd import SystemdManager, SystemdPlaces

    programs = LocalPrograms(given.environment)
    managers: dict[ServiceKind, ServiceManager] = {
        ServiceKind.PROCESS: ProcessManager(given.paths.run, Launch(given.environment, given.new_id))
    }
    managers[ServiceKind.NONE] = SessionPrograms(given.clock)
    if given.paths.is_whole_machine:
        managers[ServiceKind.SYSTEMD] = SystemdManager(SystemdPlaces(given.paths.journal), programs, given.clock)
    sessions = LogindSessions(programs) if given.paths.is_whole_machine else NoSessions()
    identity = LinuxIdentity(Path("/"), as_root=given.paths.is_whole_machine)
    return Machine(LinuxDisk(), programs, ByKind(managers), sessions, identity)


def _macos(given: Given) -> Machine:
    from agent.platform.launchctl import launchctl
    from agent.platform.launchd import DAEMONS, Launchd, LaunchdManager
    from agent.platform.macos import MacDisk
    from agent.platform.portable import PortablePrograms, SessionTether

    launchd = Launchd(given.paths.root_dir / DAEMONS, launchctl, given.clock, given.environment)
    return Machine(
        MacDisk(),
        PortablePrograms(given.environment, SessionTether()),
        ByKind({ServiceKind.LAUNCHD: LaunchdManager(given.paths.run, launchd)}),
        ConsoleSessions(console_owner) if given.paths.is_whole_machine else NoSessions(),
        MacIdentity(gethostuuid),
    )


def _windows(given: Given) -> Machine:
    from agent.platform.jobs import JobTether
    from agent.platform.portable import PortablePrograms
    from agent.platform.win32 import load_win32
    from agent.platform.windows import WindowsManager
    from agent.platform.windows_disk import WindowsDisk
    from agent.platform.windows_sessions import TerminalSessions, load_wtsapi32

    try:
        api, wtsapi32 = load_win32(), load_wtsapi32()
    except OSError as error:
        raise AgentError(Code.NOT_SUPPORTED, f"the agent cannot drive Windows here: {error}") from error
    return Machine(
        WindowsDisk(api, given.clock),
        PortablePrograms(given.environment, JobTether(api)),
        ByKind({ServiceKind.WINDOWS_SERVICE: WindowsManager(given.paths.run, api, given.clock)}),
        TerminalSessions(wtsapi32) if given.paths.is_whole_machine else NoSessions(),
        WindowsIdentity(registry_text),
    )
