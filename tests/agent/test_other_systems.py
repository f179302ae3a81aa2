"""Whole updates as macOS and Windows see them: the real cycle on simulated systems, and the power cut anywhere.

What is not simulated is Linux: the files, the programs, the processes (agent/README.md).
"""

from __future__ import annotations

import os
import random
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from simulators import launchctl, windows
from simulators.repository import Repository
from support.components import PLATFORM, Package
from support.managers import ENVIRONMENT, QuickClock, launchd_on, windows_on

from agent.bootstrap import Provision, provision
from agent.codes import Code
from agent.cycle import Cycle
from agent.endpoint import Endpoint, World, put_together
from agent.errors import AgentError
from agent.manifest import load_manifest
from agent.paths import Paths
from agent.platform.bykind import ByKind
from agent.platform.jobs import JobTether
from agent.platform.linux import exchange
from agent.platform.machine import Given, Machine, machine_of
from agent.platform.macos import MacDisk
from agent.platform.portable import PortablePrograms, SessionTether
from agent.platform.windows_disk import WindowsDisk
from agent.result import Result
from agent.status import load_status
from agent.units import unit_of, unit_of_installed
from repo_server.core.model import Os, Platform
from repo_server.core.package import ServiceKind, parse_package_toml

COMPONENTS = ("service", "probe")


class Whole(Paths):
    """A folder that stands for a whole machine."""

    @property
    def is_whole_machine(self) -> bool:
        return True


class System(ABC):
    """A machine of another system, in a folder."""

    os: Os
    kind: ServiceKind

    def __init__(self, root: Path) -> None:
        self.paths = Whole(root)
        self.paths.create()
        self.clock = QuickClock()

    @abstractmethod
    def machine(self) -> Machine:
        """Return what the agent gets of it."""

    @abstractmethod
    def die_at(self, call: int | None) -> None:
        """Cut the power before this call to the service manager."""

    @abstractmethod
    def boot(self) -> None:
        """Start again."""

    @abstractmethod
    def processes(self) -> list[int]:
        """Return what runs."""

    def endpoint(self) -> Endpoint:
        world = World(
            clock=self.clock,
            random=random.random,
            new_id=lambda: str(uuid.uuid4()),
            platform=Platform(self.os, PLATFORM.arch),
            version="1.0.0",
            environment=ENVIRONMENT,
        )
        config = provision(self.paths, Provision(), str(uuid.uuid4()))
        return put_together(self.paths, config, world, self.machine())

    def cycle(self) -> Result:
        return Cycle(self.endpoint(), "scheduled").run()

    def state(self) -> dict[str, tuple[str, bool]]:
        """Return what is committed and in place, component → (version, running); the two must be one."""
        found = {}
        endpoint = self.endpoint()
        for name, component in load_manifest(self.paths.manifest).manifest.components.items():
            assert (self.paths.install(name) / "VERSION").read_text() == str(component.version)
            found[name] = (
                str(component.version),
                endpoint.services.running(unit_of_installed(self.paths, component, None)),
            )
        return found

    def running(self) -> list[str]:
        """Return which versions run: it is in their arguments."""
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in self.processes()]
        return sorted(line[2].decode() for line in lines if line[0] == b"sleep")


class Mac(System):
    os, kind = Os.MACOS, ServiceKind.LAUNCHD

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.simulator = launchctl.LaunchdSimulator()

    def machine(self) -> Machine:
        return Machine(
            MacDisk(lambda one, other, _: 0 if exchange(Path(os.fsdecode(one)), Path(os.fsdecode(other))) else 45),
            PortablePrograms(ENVIRONMENT, SessionTether()),
            ByKind({self.kind: launchd_on(self.paths.state, self.simulator, self.clock)}),
        )

    def die_at(self, call: int | None) -> None:
        self.simulator.dying_at = None if call is None else len(self.simulator.calls) + call

    def boot(self) -> None:
        self.simulator.boot(self.paths.state / "LaunchDaemons")

    def processes(self) -> list[int]:
        return [job.process.pid for job in self.simulator.jobs.values() if job.process is not None]


class Windows(System):
    os, kind = Os.WINDOWS, ServiceKind.WINDOWS_SERVICE

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.simulator = windows.WindowsSimulator(str(root), ENVIRONMENT)

    def machine(self) -> Machine:
        api = self.simulator.api()
        return Machine(
            WindowsDisk(api, self.clock),
            PortablePrograms(ENVIRONMENT, JobTether(api, {"start_new_session": True})),
            ByKind({self.kind: windows_on(self.paths.state, self.simulator, self.clock)}),
        )

    def die_at(self, call: int | None) -> None:
        self.simulator.dying_at = None if call is None else len(self.simulator.calls) + call

    def boot(self) -> None:
        self.simulator.boot()

    def processes(self) -> list[int]:
        return [one.process.pid for one in self.simulator.services.values() if one.process is not None]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    (tmp_path / "tree").mkdir()
    with Repository(tmp_path / "tree") as repository:
        yield repository


@pytest.fixture(params=[Mac, Windows])
def system(request: pytest.FixtureRequest, tmp_path: Path, repository: Repository) -> Iterator[System]:
    system: System = request.param(tmp_path / "machine")
    settings = {"update_server_url": repository.url, "components": list(COMPONENTS)}
    provision(system.paths, Provision(repository.root_json, None, settings), str(uuid.uuid4()))
    yield system
    system.die_at(None)
    system.simulator.power_off()  # type: ignore[attr-defined]


def publish(repository: Repository, system: System, version: str, *, works: bool = True) -> None:
    for component in COMPONENTS:
        program = f"#!/bin/sh\nexec sleep 3600 {version.split('.')[1]}\n" if works else "#!/bin/sh\nexit 1\n"
        service = f'kind = "{system.kind}"\nname = "commandit-{component}"\ncommand = ["bin/serve"]'
        package = Package(component, version, program=program, service=service)
        here, there = f"{PLATFORM}", f"{system.os}-{PLATFORM.arch}"
        manifest = package.manifest.replace(f'os = "{PLATFORM.os}"', f'os = "{system.os}"')
        repository.publish(package.name.replace(here, there), Rewritten(package, manifest).build())


class Rewritten(Package):
    """A package with another ``package.toml``."""

    def __init__(self, package: Package, manifest: str) -> None:
        super().__init__(package.component, package.version, program=package.program, files=package.files)
        self._manifest = manifest

    @property
    def manifest(self) -> str:
        return self._manifest


def everywhere(version: str) -> dict[str, tuple[str, bool]]:
    return dict.fromkeys(COMPONENTS, (version, True))


def test_it_installs_updates_and_takes_back_what_does_not_work(system: System, repository: Repository) -> None:
    for version in ("1.0.0", "1.1.0"):
        publish(repository, system, version)
        assert system.cycle().code is Code.OK
        assert system.state() == everywhere(version)
    assert system.running() == ["1", "1"]
    publish(repository, system, "1.2.0", works=False)
    assert system.cycle().code is Code.HEALTH_FAILED
    assert system.state() == everywhere("1.1.0")
    assert system.running() == ["1", "1"]
    assert sorted(path.name for path in system.paths.install_root.iterdir()) == sorted(COMPONENTS)


FIT = '#!/bin/sh\nsleep 1.1\necho "fit $COMMANDIT_TRIAL"\n'
"""What an agent does on trial."""


def publish_updater(repository: Repository, system: System, version: str) -> None:
    program = "bin/commandit-updater.exe" if system.os is Os.WINDOWS else "bin/commandit-updater"
    package = Package("updater", version, service='kind = "none"', health='kind = "process"', files={program: FIT})
    there = f"{system.os}-{PLATFORM.arch}"
    manifest = package.manifest.replace(f'os = "{PLATFORM.os}"', f'os = "{system.os}"')
    repository.publish(package.name.replace(f"{PLATFORM}", there), Rewritten(package, manifest).build())


def test_an_agent_that_cannot_replace_itself_says_so_once_and_updates_all_else(
    system: System, repository: Repository
) -> None:
    """FR-SUP-002: Windows cannot exchange two folders in one call; nothing is stopped to find that out."""
    provision(system.paths, Provision(None, None, {"components": [*COMPONENTS, "updater"]}), "")
    for version in ("1.0.0", "1.1.0"):
        publish(repository, system, version)
        publish_updater(repository, system, version)
        result = system.cycle()
    updater = "1.0.0" if system.os is Os.WINDOWS else "1.1.0"
    wanted = {**dict.fromkeys(COMPONENTS, "1.1.0"), "updater": updater}
    assert {path.parent.name: path.read_text() for path in system.paths.install_root.glob("*/VERSION")} == wanted
    assert system.running() == ["1", "1"]
    last = repository.final("updater")[-1]
    if system.os is not Os.WINDOWS:
        assert (result.code, last.status) == (Code.OK, "success")
        return
    assert (result.status, result.code, len(result.installed)) == ("partial", Code.NOT_SUPPORTED, 2)
    assert "cannot exchange two folders" in (last.error_message or "")
    assert (last.status, last.error_code, last.current_version) == ("skipped", "NOT_SUPPORTED", "1.0.0")
    status = load_status(system.paths.status).status
    assert (status.last_operation_status, status.last_error_code) == ("partial", Code.NOT_SUPPORTED)
    assert system.cycle().code is Code.NOT_SUPPORTED
    assert [record.status for record in repository.final("updater")] == ["success", "skipped"], "once"


CUTS = 8


def test_after_a_power_cut_at_any_call_one_whole_set_is_in_place_and_running(
    system: System, repository: Repository
) -> None:
    """A sample, spread over a whole update."""
    publish(repository, system, "1.0.0")
    assert system.cycle().code is Code.OK
    calls = 0
    for cut in range(1, CUTS + 1):
        publish(repository, system, f"1.{cut}.0")
        before = len(system.simulator.calls)  # type: ignore[attr-defined]
        if cut > 1:
            system.die_at(calls * (cut - 1) // CUTS)
            with pytest.raises((launchctl.Killed, windows.Killed)):
                system.cycle()
            system.die_at(None)
            system.boot()
            system.cycle()
        result = system.cycle()
        calls = calls or len(system.simulator.calls) - before  # type: ignore[attr-defined]
        assert result.code is Code.OK, (cut, result)
        assert system.state() == everywhere(f"1.{cut}.0"), cut
        assert system.running() == [str(cut)] * 2


def test_a_package_for_another_kind_of_manager_is_refused_before_anything_is_touched(
    system: System, repository: Repository
) -> None:
    system.kind, right = ServiceKind.SYSTEMD, system.kind
    publish(repository, system, "1.0.0")
    result = system.cycle()
    assert result.code is Code.NOT_SUPPORTED
    assert f"does not drive on {system.os}" in (result.message or "")
    assert system.processes() == []
    assert right.value in (result.message or "")


@pytest.mark.parametrize("left_out", ["name", "command"])
def test_a_package_without_what_a_registration_needs_is_refused(
    system: System, repository: Repository, left_out: str
) -> None:
    """L43. Before anything is stopped: ``service_manager`` may ask for a kind that a package was not made for."""
    lines = {"name": 'name = "commandit-service"', "command": 'command = ["bin/serve"]'}
    kind = system.kind if left_out == "command" else "none"
    del lines[left_out]
    text = f'component = "service"\nversion = "1.0.0"\nos = "{system.os}"\narch = "{PLATFORM.arch}"\n'
    package = parse_package_toml(f'{text}[service]\nkind = "{kind}"\n{chr(10).join(lines.values())}\n'.encode())
    asked = replace(package, service=replace(package.service, kind=system.kind))
    with pytest.raises(AgentError, match=r"needs service.name and service.command") as caught:
        unit_of(system.paths, asked, None)
    assert caught.value.code is Code.NOT_SUPPORTED
    with pytest.raises(AgentError, match="knows nothing of an endpoint below"):
        unit_of(Paths(system.paths.root_dir), asked, None)


def test_the_adapters_for_windows_need_windows(tmp_path: Path) -> None:
    given = Given(Paths(tmp_path), QuickClock(), {}, str)
    with pytest.raises(AgentError, match="expected Windows") as caught:
        machine_of(Os.WINDOWS, given)
    assert caught.value.code is Code.NOT_SUPPORTED


def test_the_adapters_for_macos_drive_launchd_by_its_command(tmp_path: Path) -> None:
    machine = machine_of(Os.MACOS, Given(Paths(tmp_path), QuickClock(), {}, str))
    assert isinstance(machine.disk, MacDisk)
    assert not machine.services.wanted("service")
