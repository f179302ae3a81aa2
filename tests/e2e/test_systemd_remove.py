"""``uninstall`` on a real booted systemd: units go with their components, the agent's own with the rest."""

from __future__ import annotations

import pytest
from simulators.repository import Repository
from support.endpoints import wait_until
from support.machine import Machine
from support.systemd import install, package, publish, runs

pytestmark = pytest.mark.root


@pytest.fixture
def repository(machine_repository: Repository) -> Repository:
    return machine_repository


def units(machine: Machine) -> set[str]:
    """Return every unit file and link that is ours."""
    folder = machine.root / "etc/systemd/system"
    return {path.name for path in folder.rglob("*commandit*")}


def test_units_go_with_their_components_and_a_purge_takes_the_agents_own(
    machine: Machine, repository: Repository
) -> None:
    machine.boot()
    publish(repository, package("service", "1.0.0"), package("probe", "1.0.0"))
    install(machine, repository, "service", "probe", run_as="daemon")
    # The resident agent begins with a cycle of its own, and nothing is removed during that.
    wait_until(lambda: machine.agent("uninstall", "probe", expect=None).returncode == 0, "the component is removed")
    assert machine.installed() == {"service": "1.0.0"}
    assert runs(machine, "service") == "1.0.0"
    assert not any("probe" in name for name in units(machine))
    wait_until(lambda: machine.agent("verify", expect=None).returncode == 0, "the other one is as its package has it")
    wait_until(lambda: machine.agent("uninstall", "--purge", expect=None).returncode == 0, "everything is removed")
    assert units(machine) == set()
    assert machine.show("commandit-updater.service", "LoadState") == "not-found"
    for left in ("etc/commandit", "var/lib/commandit", "opt/commandit"):
        assert not (machine.root / left).exists()
