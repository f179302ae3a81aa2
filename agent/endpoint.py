"""One endpoint put together: everything that a command of the agent works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.actions import SequenceActions, Source
from agent.codes import Code
from agent.config import Config
from agent.health import HealthChecker
from agent.install import Installer
from agent.journal import Journal
from agent.logs import Log
from agent.paths import Paths
from agent.platform.machine import Given, Machine, machine_of
from agent.ports import Clock, Disk, Identity, Programs, ServiceManager, Sessions
from agent.runner import Interruption, Runner
from agent.selfupdate import Watch
from agent.spool import Spool
from repo_server.core.model import Platform


@dataclass(frozen=True, slots=True)
class World:
    """What only a composition root can give: time, chance, and what the machine is."""

    clock: Clock
    random: Callable[[], float]
    """In [0, 1)."""
    new_id: Callable[[], str]
    """A random UUID."""
    platform: Platform
    version: str
    """Of the agent."""
    environment: Mapping[str, str]
    """What programs of packages get; nothing of the caller's."""
    program: Path | None = None
    """What this agent was started as; ``None``: a Python environment."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """What overrides the configuration, as environment variables."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The agent's parts on one machine. Nothing in it holds state that is not on the disk."""

    paths: Paths
    config: Config
    world: World
    log: Log
    spool: Spool
    journal: Journal
    installer: Installer
    services: ServiceManager
    programs: Programs
    disk: Disk
    sessions: Sessions
    identity: Identity
    interruption: Interruption = field(default_factory=Interruption)

    def runner(self, source: Source | None = None) -> Runner:
        """Return a runner of sequences; without ``source`` it can only finish or take back."""
        actions = SequenceActions(
            paths=self.paths,
            platform=self.world.platform,
            clock=self.world.clock,
            installer=self.installer,
            services=self.services,
            programs=self.programs,
            health=HealthChecker(self.services, self.programs, self.world.clock),
            watch=Watch(
                self.paths, self.programs, self.log, self.world.overrides, self.world.new_id, self.world.clock.monotonic
            ),
            spool=self.spool,
            log=self.log,
            run_by=self.config.service_manager,
            source=source,
        )
        return Runner(actions, self.journal, self.log, self.interruption)


def put_together(paths: Paths, config: Config, world: World, machine: Machine | None = None) -> Endpoint:
    """Build an endpoint; the folders of ``paths`` must be there. Touches nothing.

    ``machine``: other ports than those of the system this runs on.
    """
    if machine is None:
        machine = machine_of(world.platform.os, Given(paths, world.clock, world.environment, world.new_id))
    paths = paths.configured(config.component_manifest_path, config.log_file_path, config.root_path)
    log = Log(paths.log, world.clock.now, max_bytes=config.log_max_size_mb << 20, max_files=config.log_max_files)
    return Endpoint(
        paths=paths,
        config=config,
        world=world,
        log=log,
        spool=Spool(paths.spool),
        journal=Journal(paths.journal, paths.install_root / ".sequence.json"),
        installer=Installer(paths, machine.disk, lambda text: log.warning(text, code=Code.IO)),
        disk=machine.disk,
        sessions=machine.sessions,
        identity=machine.identity,
        services=machine.services,
        programs=machine.programs,
    )
