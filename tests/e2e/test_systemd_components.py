"""Components as systemd services, on a machine with a real booted systemd (L43, FR-CMP-001, promise 1)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import Package
from support.endpoints import wait_until
from support.machine import ROOT, Machine

pytestmark = pytest.mark.root

HALTED = ROOT / "tests/faults/halted_agent.py"

UNIT = """\
[Unit]
Description={component} {version}

[Service]
ExecStart=/opt/commandit/{component}/bin/serve
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""
PROGRAM = '#!/bin/sh\necho "this is {component} {version}"\nwhile :; do sleep 3600 & wait $!; done\n'


def package(component: str, version: str, *, program: str = PROGRAM, health: str = "", stop: float = 5) -> Package:
    unit = UNIT.format(component=component, version=version)
    return Package(
        component,
        version,
        program=program,
        service=f'kind = "systemd"\nname = "demo-{component}"\nstop_timeout_seconds = {stop}',
        health=health or 'kind = "process"\ntimeout_seconds = 5\nprobation_seconds = 2',
        files={f"systemd/demo-{component}.service": unit},
    )


@pytest.fixture
def repository(tmp_path: Path, machine: Machine) -> Iterator[Repository]:
    with Repository(tmp_path / "downloads") as repository:
        (machine.root / "root/root.json").write_bytes(repository.root_json.read_bytes())
        yield repository


def publish(repository: Repository, *packages: Package) -> None:
    for one in packages:
        repository.publish(one.name, one.build())


def install(machine: Machine, repository: Repository, *components: str) -> None:
    names = ",".join(components)
    machine.agent("install", "--server", repository.url, "--root", "/root/root.json", "--components", names)


def units(machine: Machine) -> list[str]:
    """Return the unit files of components, and the links that enable them."""
    return sorted(str(path) for path in (machine.root / "etc/systemd/system").rglob("demo-*"))


def programs(machine: Machine, component: str) -> int:
    """Return how many processes of a component there are."""
    look = f"cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -cx '[/]opt/commandit/{component}/bin/serve'"
    return int(machine.do("sh", "-c", look, expect=None).stdout)


def register_recovery(machine: Machine) -> None:
    """Put the recovery unit in place, with the agent that is under test here."""
    text = (ROOT / "systemd/commandit-updater-recover.service").read_text()
    command = f"ExecStart={sys.executable} -m agent recover"
    text = re.sub(r"(?m)^ExecStart=.*$", command, text)
    (machine.root / "etc/systemd/system/commandit-updater-recover.service").write_text(text)
    machine.do("systemctl", "enable", "commandit-updater-recover.service")


def halt_at(machine: Machine, step: str) -> None:
    """Update, and stop the agent dead at a step of the second component."""
    cycle = subprocess.Popen(machine.inside(sys.executable, HALTED, step, "probe", "once"), stdout=subprocess.PIPE)
    with cycle:
        assert cycle.stdout is not None
        assert cycle.stdout.readline() == b"halted\n"
        machine.cut_power()


def runs(machine: Machine, component: str) -> str:
    """Return which version of a component's unit is at work."""
    unit = f"demo-{component}.service"
    assert machine.is_active(unit), machine.do("systemctl", "status", unit, expect=None).stdout
    assert machine.show(unit, "UnitFileState") == "enabled"
    return machine.show(unit, "Description").removeprefix(f"{component} ")


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
    machine.agent(
        "install", "--server", repository.url, "--root", "/root/root.json", "--components", "service", expect=1
    )
    assert units(machine) == []
    assert machine.show("demo-service.service", "LoadState") == "not-found"


@pytest.mark.parametrize("step", ["stop", "exchange", "start", "health"])
def test_after_a_power_cut_in_the_middle_one_whole_set_runs(
    machine: Machine, repository: Repository, step: str
) -> None:
    """Promise 1: the second component is cut off at a step; after the boot all are back at the old release."""
    machine.boot()
    register_recovery(machine)
    components = ("service", "probe")
    publish(repository, *(package(name, "1.0.0") for name in components))
    install(machine, repository, *components)
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
    said = machine.agent(
        "install", "--server", repository.url, "--root", "/root/root.json", "--components", "service", expect=1
    ).stderr
    assert "did not write" in said
    assert machine.is_active("demo-service")
    assert theirs.read_text() == "[Service]\nExecStart=/bin/sleep 7200\n"
