"""Updates of what belongs to a user session wait for its end, and not for ever (FR-CMP-007)."""

from __future__ import annotations

import random
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import PLATFORM, Package
from support.endpoints import endpoint_in
from support.managers import ENVIRONMENT, QuickClock

from agent.bootstrap import Provision, provision
from agent.codes import Code
from agent.cycle import Cycle
from agent.endpoint import World, put_together
from agent.paths import Paths
from agent.platform.linux import LinuxDisk
from agent.platform.machine import Given, Machine, machine_of
from agent.postpone import LOOK_SECONDS, WAITING, load_waits
from agent.reinstall import Reinstall
from agent.result import Result
from agent.status import OperationStatus, load_status

HOUR = timedelta(hours=1)
START = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)


def package(component: str, version: str, more: str = "", check: str = "exit 0") -> Package:
    """Return a package without a program, so that nothing outlives a cycle in this process."""
    health = 'kind = "command"\ncommand = ["bin/check"]\ntimeout_seconds = 1'
    return Package(component, version, service=f'kind = "none"\n{more}', health=health, check=f"#!/bin/sh\n{check}\n")


@dataclass
class Desk:
    """A machine at which somebody works, or not; its wall clock is the test's."""

    paths: Paths
    sessions: tuple[str, ...] = ()
    wait: int | None = None
    now: datetime = START
    asked: int = 0
    clock: QuickClock = field(default_factory=QuickClock)

    def active(self) -> tuple[str, ...]:
        self.asked += 1
        return self.sessions

    def cycle(self, reinstall: Reinstall | None = None) -> Result:
        self.clock.now = lambda: self.now  # type: ignore[method-assign] -- a clock that stands still between cycles
        world = World(self.clock, random.random, lambda: str(uuid.uuid4()), PLATFORM, "1.0.0", ENVIRONMENT)
        given = Given(self.paths, self.clock, ENVIRONMENT, lambda: str(uuid.uuid4()))
        machine = machine_of(PLATFORM.os, given)
        config = provision(self.paths, Provision(settings={"session_wait_seconds": self.wait}), str(uuid.uuid4()))
        ours = Machine(LinuxDisk(), machine.programs, machine.services, sessions=self)
        return Cycle(put_together(self.paths, config, world, ours), "scheduled", reinstall).run()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "downloads") as repository:
        publish(repository, *(package(name, "1.0.0") for name in ("service", "ui")))
        yield repository


@pytest.fixture
def desk(tmp_path: Path, repository: Repository) -> Iterator[Desk]:
    with endpoint_in(tmp_path / "endpoint") as endpoint:
        endpoint.paths.create()
        settings = {
            "update_server_url": repository.url,
            "components": ["service", "ui"],
            "service_manager": "process",
        }
        provision(endpoint.paths, Provision(repository.root_json, None, settings), str(uuid.uuid4()))
        desk = Desk(endpoint.paths)
        assert desk.cycle().installed == ("service 1.0.0", "ui 1.0.0")
        assert desk.asked == 0, "a first installation waits for nobody"
        yield desk


def publish(repository: Repository, *packages: Package) -> None:
    for package in packages:
        repository.publish(package.name, package.build())


def test_the_ui_waits_while_somebody_works_and_others_do_not(repository: Repository, desk: Desk) -> None:
    publish(repository, package("service", "1.1.0"), package("ui", "1.1.0"))
    desk.sessions = ("ana (wayland)",)
    result = desk.cycle()
    assert (result.status, result.code, result.installed) == (OperationStatus.SUCCESS, Code.OK, ("service 1.1.0",))
    status = load_status(desk.paths.status).status
    assert status.last_error_message == (
        "ui 1.1.0 waits for no active user session until 2026-11-22 17:00 UTC; there is: ana (wayland)"
    )
    assert status.last_error_code is Code.OK
    assert status.next_check_time is not None
    assert status.next_check_time <= desk.now + timedelta(seconds=LOOK_SECONDS * 1.1), "somebody may log out"
    desk.now += HOUR
    assert desk.cycle().installed == ()
    health = repository.checks[-1].health
    assert health is not None
    assert (health.status, health.details) == ("ok", "ui 1.1.0 waits for no user session since 2026-11-21T17:00:00Z")
    desk.sessions = ()
    assert desk.cycle().installed == ("ui 1.1.0",)
    desk.cycle()
    assert load_waits(desk.paths.state / WAITING) == {}
    assert load_status(desk.paths.status).status.last_error_message is None


def test_the_wait_ends_although_somebody_works_and_newer_versions_do_not_begin_it_anew(
    repository: Repository, desk: Desk
) -> None:
    """On a terminal server there is always somebody."""
    desk.sessions = tuple(f"user{number} (x11)" for number in range(40))
    publish(repository, package("ui", "1.1.0"))
    assert "user2 (x11) and 37 more" in desk.cycle().notes[0]
    publish(repository, package("ui", "1.2.0"))
    desk.now += 23 * HOUR
    assert desk.cycle().installed == ()
    desk.now += HOUR
    assert desk.cycle().installed == ("ui 1.2.0",)
    publish(repository, package("ui", "1.3.0"))
    assert desk.cycle().installed == (), "the next update is another wait"


def test_an_update_that_failed_after_its_wait_does_not_wait_once_more(repository: Repository, desk: Desk) -> None:
    desk.sessions = ("ana (x11)",)
    publish(repository, package("ui", "1.1.0", check="exit 1"))
    desk.cycle()
    desk.now += 24 * HOUR
    assert desk.cycle().code is Code.HEALTH_FAILED
    publish(repository, package("ui", "1.2.0"))
    assert desk.cycle().installed == ("ui 1.2.0",)


def test_a_clock_that_is_set_back_makes_the_wait_no_longer(repository: Repository, desk: Desk) -> None:
    desk.sessions = ("ana (x11)",)
    publish(repository, package("ui", "1.1.0"))
    desk.cycle()
    desk.now -= timedelta(days=3650)
    desk.cycle()
    desk.now += 24 * HOUR
    assert desk.cycle().installed == ("ui 1.1.0",)


def test_what_needs_the_waiting_component_waits_with_it_and_nothing_is_a_failure(
    repository: Repository, desk: Desk
) -> None:
    desk.sessions = ("ana (x11)",)
    publish(repository, package("ui", "1.1.0"))
    needing = package("service", "1.1.0")
    repository.publish(needing.name, needing.build(), requires={"ui": "1.1.0"})
    result = desk.cycle()
    assert (result.status, result.code, result.installed) == (OperationStatus.UP_TO_DATE, Code.OK, ())
    assert len(result.notes) == 2
    desk.sessions = ()
    assert desk.cycle().installed == ("ui 1.1.0", "service 1.1.0")


def test_a_program_that_a_session_started_is_ended_when_its_update_comes(repository: Repository, desk: Desk) -> None:
    """FR-CMP-007: gracefully, and that of no other component."""
    ui, service = (desk.paths.install(name) / "bin/serve" for name in ("ui", "service"))
    with subprocess.Popen([ui]) as ours, subprocess.Popen([service]) as other:
        try:
            desk.sessions = ("ana (x11)",)
            publish(repository, package("ui", "1.1.0"), package("service", "1.1.0"))
            assert desk.cycle().installed == ("service 1.1.0",)
            assert ours.poll() is None
            desk.now += 24 * HOUR
            assert desk.cycle().installed == ("ui 1.1.0",)
            assert ours.wait(10) == -15
            assert other.poll() is None
        finally:
            ours.kill()
            other.kill()


def test_a_recall_waits_for_nobody(repository: Repository, desk: Desk) -> None:
    publish(repository, package("ui", "1.1.0"))
    desk.cycle()
    repository.block(package("ui", "1.1.0").name)
    desk.sessions = ("ana (x11)",)
    assert desk.cycle().installed == ("ui 1.0.0",)


def test_who_asks_for_a_reinstallation_means_now(desk: Desk) -> None:
    desk.sessions = ("ana (x11)",)
    assert desk.cycle(Reinstall("ui")).installed == ("ui 1.0.0",)


def test_the_wait_can_be_configured_away(repository: Repository, desk: Desk) -> None:
    desk.sessions, desk.wait = ("ana (x11)",), 0
    publish(repository, package("ui", "1.1.0"))
    assert desk.cycle().installed == ("ui 1.1.0",)
    assert desk.asked == 0


def test_the_installed_package_says_whether_it_belongs_to_a_session(repository: Repository, desk: Desk) -> None:
    """L43: a service may, a ui need not."""
    service = package("service", "1.1.0", "session = true")
    ui = package("ui", "1.1.0", "session = false")
    publish(repository, service, ui)
    assert desk.cycle().installed == ("service 1.1.0", "ui 1.1.0")
    desk.sessions = ("ana (x11)",)
    publish(repository, package("service", "1.2.0"), package("ui", "1.2.0"))
    assert desk.cycle().installed == ("ui 1.2.0",)


def test_a_damaged_note_costs_one_more_wait(repository: Repository, desk: Desk) -> None:
    desk.sessions = ("ana (x11)",)
    publish(repository, package("ui", "1.1.0"))
    desk.cycle()
    (desk.paths.state / WAITING).write_bytes(b"\0" * 40)
    desk.now += 24 * HOUR
    assert desk.cycle().installed == ()
    desk.now += 24 * HOUR
    assert desk.cycle().installed == ("ui 1.1.0",)
