"""Self-update on a real booted systemd: resident, by a timer, with the power cut, and what starts at the next boot.

FR-SUP-001 to FR-SUP-003. Each version of the agent is a launcher that notes what it was run with.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.endpoints import wait_until
from support.machine import Machine
from support.systemd import HALTED, install, package, publish, runs
from support.updaters import CRASHES, HANGS, runs_of, updater

pytestmark = pytest.mark.root

DAEMON, ONCE = "commandit-updater.service", "commandit-updater-once.service"
RECOVER = "commandit-updater-recover.service"
RAN = Path("/root/ran")
PROGRAM = "/opt/commandit/updater/bin/commandit-updater"


class Story:
    """A machine whose agent is the installed component ``updater``, at 1.0.0."""

    def __init__(self, machine: Machine, repository: Repository, run_as: str) -> None:
        self.machine = machine
        self.repository = repository
        self.ran = machine.root / "root/ran"
        machine.boot()
        self.publish("1.0.0")
        install(machine, repository, "service", "updater", run_as=run_as)

    def publish(self, version: str, behaviour: str = "") -> None:
        publish(self.repository, package("service", version), updater(version, RAN, behaviour))

    def ran_as(self, version: str) -> list[str]:
        return runs_of(self.ran, version)

    def check_now(self) -> None:
        """Ask the resident agent, as soon as it listens; it is a moment before the next one does."""
        asked = self.machine.root / "var/lib/commandit/run/update.sock"
        wait_until(asked.exists, "the agent listens")
        self.machine.do("systemctl", "kill", "--signal=SIGHUP", "--kill-whom=main", DAEMON)

    def is_at(self, version: str) -> bool:
        """Whether exactly this version is installed, and nothing is under way."""
        installed = self.machine.installed() == dict.fromkeys(("service", "updater"), version)
        return installed and not self.machine.paths.journal.exists()

    def reboot(self) -> None:
        self.machine.cut_power()
        self.machine.boot()


def test_the_resident_agent_replaces_itself_and_its_service_goes_on(
    machine: Machine, machine_repository: Repository
) -> None:
    story = Story(machine, machine_repository, "daemon")
    pid = machine.show(DAEMON, "MainPID")
    unit = machine.root / "etc/systemd/system" / DAEMON
    of_this_version = unit.read_text()
    assert f'ExecStart="{PROGRAM}" run' in of_this_version
    unit.write_text(of_this_version.replace("RestartSec=10", "RestartSec=11"))
    story.publish("2.0.0")
    story.check_now()
    wait_until(lambda: "recover" in story.ran_as("2.0.0"), "2.0.0 is resident")
    assert story.ran_as("2.0.0")[:4] == ["run --trial 1", "selfcheck", "run", "recover"]
    assert story.is_at("2.0.0")
    assert (machine.show(DAEMON, "MainPID"), machine.show(DAEMON, "NRestarts")) == (pid, "0")
    wait_until(lambda: unit.read_text() == of_this_version, "the units are those of the new version")
    story.publish("3.0.0", CRASHES)
    story.check_now()
    wait_until(lambda: len(machine_repository.final("updater")) == 3, "3.0.0 has failed")
    assert machine_repository.final("updater")[-1].error_code == "HEALTH_FAILED"
    assert (story.is_at("2.0.0"), machine.show(DAEMON, "MainPID")) == (True, pid)
    story.reboot()
    assert machine.is_active(DAEMON)
    assert runs(machine, "service") == "2.0.0"
    assert not {"run", "recover"} & set(story.ran_as("3.0.0"))


def test_after_a_power_cut_the_committed_agent_recovers_and_no_other(
    machine: Machine, machine_repository: Repository
) -> None:
    """While the new one is on trial, that is the old one; right after *commit* it is the new one."""
    story = Story(machine, machine_repository, "daemon")
    story.publish("2.0.0", HANGS)
    story.check_now()
    wait_until(lambda: story.ran_as("2.0.0"), "2.0.0 is on trial")
    story.reboot()
    assert "taken back" in machine.do("journalctl", "--unit", RECOVER, "--output=cat", "--no-pager").stdout
    assert story.is_at("1.0.0")
    assert runs(machine, "service") == "1.0.0"
    assert "recover" in story.ran_as("1.0.0")
    assert story.ran_as("2.0.0") == ["run --trial 1"]
    machine.do("systemctl", "stop", DAEMON)
    story.publish("3.0.0")
    with subprocess.Popen(
        machine.inside(sys.executable, HALTED, "commit", "-", "once"), stdout=subprocess.PIPE
    ) as cycle:
        assert cycle.stdout is not None
        assert cycle.stdout.readline() == b"halted\n"
        machine.cut_power()
    machine.boot()
    assert story.is_at("3.0.0")
    assert runs(machine, "service") == "3.0.0"
    assert story.ran_as("3.0.0")[:3] == ["run --trial 1", "selfcheck", "recover"]
    assert machine.is_active(DAEMON)


def test_by_a_timer_the_next_check_is_the_new_agents(machine: Machine, machine_repository: Repository) -> None:
    story = Story(machine, machine_repository, "timer")
    story.publish("2.0.0")
    machine.do("rm", "/var/lib/commandit/status.json", "/var/lib/commandit/status.json.prev")
    machine.do("systemctl", "start", ONCE)
    assert story.is_at("2.0.0")
    assert "once --if-due" in story.ran_as("1.0.0")
    machine.do("systemctl", "start", ONCE)
    assert story.ran_as("2.0.0") == ["run --trial 1", "selfcheck", "once --if-due"]
