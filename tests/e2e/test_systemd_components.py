"""Components as systemd services, on a machine with a real booted systemd (L43, FR-CMP-001, promise 1)."""

from __future__ import annotations

import pytest
from simulators.repository import Repository
from support.endpoints import wait_until
from support.machine import Machine
from support.systemd import halt_at, install, package, publish, runs

pytestmark = pytest.mark.root


@pytest.fixture
def repository(machine_repository: Repository) -> Repository:
    return machine_repository


def units(machine: Machine) -> list[str]:
    """Return the unit files of components, and the links that enable them."""
    return sorted(str(path) for path in (machine.root / "etc/systemd/system").rglob("demo-*"))


def programs(machine: Machine, component: str) -> int:
    """Return how many processes of a component there are."""
    look = f"cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -cx '[/]opt/commandit/{component}/bin/serve'"
    return int(machine.do("sh", "-c", look, expect=None).stdout)


def test_a_service_is_installed_updated_and_comes_back_after_a_reboot(machine: Machine, repository: Repository) -> None:
    machine.boot()
    publish(repository, package("service", "1.0.0"))
    install(machine, repository, "service")
    assert runs(machine, "service") == "1.0.0"
    publish(repository, package("service", "1.1.0"))
    machine.agent("once")
    assert (runs(machine, "service"), machine.versions()) == ("1.1.0", {"service": "1.1.0"})
    machine.cut_power()
    machine.boot()
    assert runs(machine, "service") == "1.1.0"


def test_a_version_that_fails_its_health_check_goes_and_the_old_unit_comes_back(
    machine: Machine, repository: Repository
) -> None:
    """FR-RBK-001: a new version that ends again and again is no healthy one, although systemd starts it each time."""
    machine.boot()
    publish(repository, package("service", "1.0.0"), package("probe", "1.0.0"))
    install(machine, repository, "service", "probe")
    before = (machine.root / "etc/systemd/system/demo-service.service").read_bytes()
    publish(repository, package("service", "1.1.0", program="#!/bin/sh\necho I cannot\nsleep 0.5\nexit 3\n"))
    publish(repository, package("probe", "1.1.0"))
    said = machine.agent("once", expect=1).stderr
    assert "HEALTH_FAILED" in said
    assert "I cannot" in said
    assert {name: runs(machine, name) for name in ("service", "probe")} == {"service": "1.0.0", "probe": "1.0.0"}
    assert (machine.root / "etc/systemd/system/demo-service.service").read_bytes() == before
    assert machine.versions() == {"service": "1.0.0", "probe": "1.0.0"}


def test_a_first_installation_that_fails_leaves_nothing_in_systemd(machine: Machine, repository: Repository) -> None:
    machine.boot()
    publish(repository, package("service", "1.0.0", program="#!/bin/sh\nexit 3\n"))
    install(machine, repository, "service", expect=1)
    assert units(machine) == []
    assert machine.show("demo-service.service", "LoadState") == "not-found"


@pytest.mark.parametrize("step", ["stop", "exchange", "start", "health"])
def test_after_a_power_cut_in_the_middle_one_whole_set_runs(
    machine: Machine, repository: Repository, step: str
) -> None:
    """Promise 1: the second component is cut off at a step; after the boot all are back at the old release."""
    machine.boot()
    components = ("service", "probe")
    publish(repository, *(package(name, "1.0.0") for name in components))
    install(machine, repository, *components, run_as="timer")
    slow = 'kind = "process"\ntimeout_seconds = 5\nprobation_seconds = 3'
    publish(repository, *(package(name, "1.1.0", health=slow) for name in components))
    halt_at(machine, step)
    assert machine.versions() in ({"service": "1.1.0", "probe": "1.0.0"}, {"service": "1.1.0", "probe": "1.1.0"})
    machine.cut_power()
    machine.boot()
    wait_until(lambda: not machine.paths.journal.exists(), "recovery is done")
    assert {name: runs(machine, name) for name in components} == dict.fromkeys(components, "1.0.0")
    assert machine.versions() == machine.installed() == dict.fromkeys(components, "1.0.0")
    said = machine.do("journalctl", "--boot", "--output=cat", "--no-pager").stdout
    assert "this is probe 1.1.0" not in said
    assert "this is service 1.1.0" not in said


def test_a_service_that_does_not_listen_is_killed_in_time(machine: Machine, repository: Repository) -> None:
    """FR-CMP-001: the package's time counts, not systemd's; what the service started goes with it."""
    deaf = "#!/bin/sh\ntrap '' TERM\n(while :; do sleep 1; done) &\nwhile :; do sleep 1; done\n"
    machine.boot()
    publish(repository, package("service", "1.0.0", program=deaf, stop=1))
    install(machine, repository, "service")
    assert programs(machine, "service") == 2
    machine.agent("stop", "service")
    assert programs(machine, "service") == 0
    assert units(machine) == []
    machine.agent("start", "service")
    assert runs(machine, "service") == "1.0.0"


def test_a_unit_of_somebody_else_is_never_touched(machine: Machine, repository: Repository) -> None:
    machine.boot()
    theirs = machine.root / "etc/systemd/system/demo-service.service"
    theirs.write_text("[Service]\nExecStart=/bin/sleep 7200\n")
    machine.do("systemctl", "daemon-reload")
    machine.do("systemctl", "start", "demo-service")
    publish(repository, package("service", "1.0.0"))
    said = install(machine, repository, "service", expect=1).stderr
    assert "did not write" in said
    assert machine.is_active("demo-service")
    assert theirs.read_text() == "[Service]\nExecStart=/bin/sleep 7200\n"
