"""Somebody works at a booted machine: a real session of logind, opened through PAM as at a login (FR-CMP-007)."""

from __future__ import annotations

import pytest
from simulators.repository import Repository
from support.endpoints import wait_until
from support.machine import Machine
from support.systemd import install, package, publish, runs

pytestmark = pytest.mark.root


def sessions(machine: Machine) -> str:
    return machine.do("loginctl", "--no-legend", "list-sessions", expect=None).stdout.strip()


def open_session(machine: Machine, kind: str) -> None:
    """Log a user in, into a session of this type that lasts until its unit is stopped."""
    machine.do(
        "systemd-run", f"--unit=desk-{kind}", "--property=PAMName=login", "--property=User=ana",
        f"--setenv=XDG_SESSION_TYPE={kind}", "sleep", "7200",
    )  # fmt: skip
    wait_until(lambda: "ana" in sessions(machine), "the session is open")


def test_the_ui_is_updated_when_nobody_works_with_it(machine: Machine, machine_repository: Repository) -> None:
    machine.boot()
    repository = machine_repository
    machine.do("useradd", "--create-home", "ana")
    names = ("service", "ui")
    publish(repository, *(package(name, "1.0.0") for name in names))
    install(machine, repository, *names)
    publish(repository, *(package(name, "1.1.0") for name in names))
    open_session(machine, "wayland")
    said = machine.agent("once").stdout
    assert "ui 1.1.0 waits for no active user session until" in said
    assert "ana (wayland)" in said
    assert machine.installed() == {"service": "1.1.0", "ui": "1.0.0"}
    assert runs(machine, "ui") == "1.0.0"
    assert "waits for no active user session" in machine.agent("status").stdout
    machine.do("systemctl", "stop", "desk-wayland")
    wait_until(lambda: "ana" not in sessions(machine), "the session has ended")
    open_session(machine, "tty")
    assert "Installed: ui 1.1.0" in machine.agent("once").stdout, "a session of a terminal is in nobody's way"
    assert runs(machine, "ui") == "1.1.0"
