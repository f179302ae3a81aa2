"""The agent itself as a service of a real booted systemd: resident, by a timer, or not at all (FR-BST-002)."""

from __future__ import annotations

import sys

import pytest
from simulators.repository import Repository
from support.components import Package
from support.endpoints import wait_until
from support.machine import Machine
from support.systemd import halt_at, install, package, publish, runs

pytestmark = pytest.mark.root

DAEMON, TIMER, ONCE = "commandit-updater.service", "commandit-updater.timer", "commandit-updater-once.service"
RECOVER = "commandit-updater-recover.service"
SOON = """\
[Timer]
OnBootSec=
OnUnitInactiveSec=
OnActiveSec=1
OnUnitInactiveSec=1
RandomizedDelaySec=0
AccuracySec=100ms
"""


@pytest.fixture
def repository(machine_repository: Repository) -> Repository:
    return machine_repository


def own_units(machine: Machine) -> set[str]:
    """Return the agent's unit files, and the links that enable them."""
    units = machine.root / "etc/systemd/system"
    return {str(path.relative_to(units)) for path in units.rglob("commandit-updater*")}


def resident(machine: Machine) -> int:
    """Return how many processes of the agent there are."""
    look = f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '{sys.executable} -m [a]gent' | wc -l"
    return int(machine.do("sh", "-c", look).stdout)


def check_now(machine: Machine) -> None:
    """Ask the resident agent for a check, as soon as it listens."""
    pid = machine.show(DAEMON, "MainPID")

    def listens() -> bool:
        caught = machine.do("grep", "SigCgt", f"/proc/{pid}/status").stdout.split()[1]
        return bool(int(caught, 16) & 1)

    wait_until(listens, "the agent listens to SIGHUP")
    machine.do("systemctl", "kill", "--signal=SIGHUP", "--kill-whom=main", DAEMON)


def test_the_resident_agent_updates_and_is_there_after_a_reboot(machine: Machine, repository: Repository) -> None:
    machine.boot()
    publish(repository, package("service", "1.0.0"))
    install(machine, repository, "service", run_as="daemon")
    assert machine.is_active(DAEMON)
    assert own_units(machine) == {
        DAEMON, RECOVER, f"multi-user.target.wants/{DAEMON}", f"multi-user.target.wants/{RECOVER}"
    }  # fmt: skip
    publish(repository, package("service", "1.1.0"))
    check_now(machine)
    wait_until(lambda: machine.installed() == {"service": "1.1.0"}, "the update is done")
    assert runs(machine, "service") == "1.1.0"
    machine.cut_power()
    machine.boot()
    assert machine.is_active(DAEMON)
    assert runs(machine, "service") == "1.1.0"


def test_by_a_timer_the_agent_updates_without_a_resident_process(machine: Machine, repository: Repository) -> None:
    """It asks the server when the server wants to be asked, however often the timer looks."""
    machine.boot()
    repository.next_check_seconds = 30
    publish(repository, package("service", "1.0.0"))
    install(machine, repository, "service", run_as="timer")
    asked = len(repository.checks)
    machine.agent("once", "--if-due")
    assert len(repository.checks) == asked
    assert (machine.is_active(TIMER), resident(machine)) == (True, 0)
    assert machine.show(TIMER, "TimersMonotonic").count("OnUnitInactiveUSec=15min") == 1
    publish(repository, package("service", "1.1.0"))
    drop_in = machine.root / f"etc/systemd/system/{TIMER}.d/soon.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(SOON)
    machine.do("systemctl", "daemon-reload")
    machine.do("systemctl", "restart", TIMER)
    wait_until(lambda: machine.installed() == {"service": "1.1.0"}, "the timer's check has updated")
    machine.do("systemctl", "stop", TIMER)
    wait_until(lambda: machine.show(ONCE, "ActiveState") == "inactive", "the check has ended")
    assert (machine.show(ONCE, "Result"), resident(machine)) == ("success", 0)
    assert len(repository.checks) == asked + 1
    drop_in.unlink()
    machine.cut_power()
    machine.boot()
    assert machine.is_active(TIMER)
    assert runs(machine, "service") == "1.1.0"


def test_how_the_agent_runs_can_be_changed_and_is_kept_otherwise(machine: Machine, repository: Repository) -> None:
    machine.boot()
    install(machine, repository, "service", run_as="daemon")
    install(machine, repository, "service", run_as="timer")
    assert (machine.show(DAEMON, "LoadState"), machine.is_active(TIMER)) == ("not-found", True)
    machine.agent("install", "--components", "service")
    assert machine.is_active(TIMER)
    install(machine, repository, "service", run_as="none")
    assert own_units(machine) == set()
    assert machine.show(TIMER, "LoadState") == "not-found"
    assert machine.show(RECOVER, "ActiveState") == "inactive"


def test_an_endpoint_in_a_folder_leaves_the_machines_systemd_alone(machine: Machine, repository: Repository) -> None:
    machine.boot()
    asked = ("install", "--server", repository.url, "--root", "/root/root.json", "--components", "service")
    said = machine.agent("--root-dir", "/srv/one", *asked, "--run-as", "daemon", expect=1).stderr
    assert "cannot run as daemon" in said
    machine.agent("--root-dir", "/srv/one", *asked)
    assert own_units(machine) == set()


def test_the_resident_agent_recovers_from_a_power_cut_and_updates_again(
    machine: Machine, repository: Repository
) -> None:
    """Promise 1: cut off between two components; recovery goes back, and the next cycle brings the whole new set."""
    machine.boot()
    names = ("service", "probe")
    publish(repository, *(package(name, "1.0.0") for name in names))
    install(machine, repository, *names, run_as="daemon")
    machine.do("systemctl", "stop", DAEMON)
    publish(repository, *(package(name, "1.1.0") for name in names))
    halt_at(machine, "stop")
    machine.boot()
    assert "taken back" in machine.do("journalctl", "--unit", RECOVER, "--output=cat", "--no-pager").stdout
    check_now(machine)
    wait_until(lambda: machine.installed() == dict.fromkeys(names, "1.1.0"), "the update is made again")
    assert {name: runs(machine, name) for name in names} == dict.fromkeys(names, "1.1.0")


def test_a_package_without_a_unit_is_run_by_systemd_all_the_same(machine: Machine, repository: Repository) -> None:
    """``service_manager = systemd`` makes the unit from the package's command."""
    odd = '#!/bin/sh\necho "$1|$2"\nexec sleep 7200\n'
    service = 'kind = "process"\ncommand = ["bin/serve", "50% of $HOME ${PATH}", "a \\"b\\" \\\\ c"]'
    publish(repository, Package("service", "1.0.0", program=odd, service=service))
    machine.boot()
    install(machine, repository, "service", more=("--service-manager", "systemd"))
    assert machine.is_active("commandit-service.service")
    said = machine.do("journalctl", "--unit=commandit-service", "--output=cat", "--no-pager").stdout
    assert '50% of $HOME ${PATH}|a "b" \\ c' in said.splitlines()


def test_uninstalling_takes_components_and_the_agent_out_of_systemd(machine: Machine, repository: Repository) -> None:
    machine.boot()
    publish(repository, package("service", "1.0.0"))
    install(machine, repository, "service", run_as="timer")
    machine.agent("uninstall")
    assert own_units(machine) == set()
    assert not list((machine.root / "etc/systemd/system").rglob("demo-*"))
    assert machine.show("demo-service.service", "LoadState") == "not-found"
    assert machine.versions() == {}
