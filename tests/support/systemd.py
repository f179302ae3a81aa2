"""Packages that are systemd services, and what is done with them on a machine."""

from __future__ import annotations

import subprocess
import sys

from simulators.repository import Repository

from support.components import Package
from support.machine import ROOT, Machine

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


def publish(repository: Repository, *packages: Package) -> None:
    for one in packages:
        repository.publish(one.name, one.build())


def install(
    machine: Machine,
    repository: Repository,
    *components: str,
    run_as: str = "none",
    expect: int = 0,
    more: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Install the agent and components."""
    return machine.agent(
        "install", "--server", repository.url, "--root", "/root/root.json", "--components", ",".join(components),
        "--run-as", run_as, *more, expect=expect,
    )  # fmt: skip


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
