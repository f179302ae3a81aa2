"""Update now on a booted systemd: without a resident process, and from inside of what is updated (FR-UPD-001B)."""

from __future__ import annotations

import re
import sys
import time

import pytest
from simulators.repository import Repository
from support.endpoints import wait_until
from support.machine import Machine
from support.systemd import install, package, publish, runs
from support.triggers import ask

from agent.trigger import SPACING

pytestmark = pytest.mark.root

CALLING = f"""\
#!/bin/sh
until test -e /root/go; do sleep 0.1; done
rm /root/go
{sys.executable} -m agent checknow >/root/said 2>&1
while :; do sleep 3600 & wait $!; done
"""


def test_by_the_socket_and_from_the_service_itself(machine: Machine, machine_repository: Repository) -> None:
    """In timer mode systemd listens; an update that a service asks for is not stopped together with it."""
    machine.boot()
    repository = machine_repository
    publish(repository, package("service", "1.0.0", program=CALLING))
    install(machine, repository, "service", run_as="timer")
    socket = machine.root / "var/lib/commandit/run/update.sock"
    assert socket.stat().st_mode & 0o777 == 0o600
    publish(repository, package("service", "1.1.0", program=CALLING, health='kind = "process"\nprobation_seconds = 4'))
    began = time.monotonic()
    assert ask(socket) == "accepted\n"
    assert ask(socket).startswith(("already running", "too soon"))
    assert ask(socket, b"uninstall\n").startswith("not understood")
    wait_until(lambda: machine.installed() == {"service": "1.1.0"}, "the update is done")
    assert runs(machine, "service") == "1.1.0"
    wait_until(lambda: len(repository.final("service")) == 2, "it is reported")
    assert repository.final("service")[-1].trigger_source == "manual"
    if time.monotonic() - began < SPACING / 2:
        # A machine that took longer would be let through, and right to be.
        assert re.fullmatch(r"too soon, in \d+ s\n", ask(socket))
    asked = len(repository.checks)

    publish(repository, package("service", "1.2.0"))
    (machine.root / "root/go").touch()
    wait_until(lambda: len(repository.final("service")) == 3, "what the service asked for is done")
    assert machine.installed() == {"service": "1.2.0"}
    assert runs(machine, "service") == "1.2.0"
    assert [record.status for record in repository.final("service")] == ["success"] * 3
    assert len(repository.checks) == asked + 1
    install(machine, repository, "service", run_as="none")
    assert not socket.exists()
