"""The whole agent where nothing of POSIX is: every module is imported, and every family of commands runs.

A child Python is made to take itself for Windows (``support/pretended_windows.py``); its files, folders and programs
are real. What that cannot show is in agent/README.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.repository import Repository
from support.components import PLATFORM, Package

from repo_server.core.model import Arch, Os, Platform

TESTS = Path(__file__).resolve().parent.parent
WINDOWS = Platform(Os.WINDOWS, Arch.AMD64)


STAYS = """\
#!/bin/sh
trap 'exit 0' TERM
while :; do sleep 0.05; done
"""


class Machine:
    """The child, and the folders that are its drives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "ProgramData" / "commandit" / "state"
        self.installed = root / "Program Files" / "commandit"
        for folder in ("ProgramData", "Program Files"):
            (root / folder).mkdir(parents=True)
        program = root / "agent"
        program.write_text(STAYS)
        program.chmod(0o755)
        environment = {
            "AGENT_PROGRAM": str(program),
            "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
            "PATH": "nowhere",
            "REAL_PATH": os.environ["PATH"],
            "SystemRoot": str(root / "Windows"),
            "SystemDrive": "C:",
            "ProgramData": str(root / "ProgramData"),
            "ProgramFiles": str(root / "Program Files"),
        }
        self._child = subprocess.Popen(
            [sys.executable, "-m", "support.pretended_windows", str(root)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: str | Path) -> Any:
        """Run one line in the child."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        assert line, "the child has ended"
        return json.loads(line)

    def run(self, *words: str | Path, expect: int = 0) -> str:
        """Run a command of the agent."""
        answer = self.ask(*words)
        assert answer["exit"] in ({None, 0} if expect == 0 else {expect}), answer["said"]
        return str(answer["said"])

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)
        assert self._child.stdout is not None
        self._child.stdout.close()

    def versions(self) -> dict[str, str]:
        return {path.parent.name: path.read_text() for path in sorted(self.installed.glob("*/VERSION"))}

    def running(self) -> list[str]:
        """Return the names of the services that run, and start at boot."""
        return [name for name, (at_boot, pid) in self.ask("!services").items() if at_boot and pid is not None]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine")
    yield machine
    machine.close()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    (tmp_path / "tree").mkdir()
    with Repository(tmp_path / "tree") as repository:
        yield repository


class WindowsPackage(Package):
    """A package for Windows; the program is one of this machine."""

    @property
    def manifest(self) -> str:
        text = super().manifest.replace(f'os = "{PLATFORM.os}"', f'os = "{WINDOWS.os}"')
        return text.replace(f'arch = "{PLATFORM.arch}"', f'arch = "{WINDOWS.arch}"')


def publish(repository: Repository, component: str, version: str, *, works: bool = True) -> None:
    program = f"#!/bin/sh\nexec sleep 3600 {version.split('.')[1]}\n" if works else "#!/bin/sh\nexit 1\n"
    service = f'kind = "windows-service"\nname = "commandit-{component}"\ncommand = ["bin/serve"]'
    package = WindowsPackage(component, version, program=program, service=service)
    repository.publish(package.name.replace(f"{PLATFORM}", f"{WINDOWS}"), package.build())


def test_every_module_of_the_agent_is_imported_but_those_of_other_systems(machine: Machine) -> None:
    """Those of other systems say so; one that merely misses something would have another message."""
    refused = machine.ask("!import")
    assert all("; expected " in said for said in refused.values()), refused
    assert {name for name in refused if not name.startswith("agent.platform.")} == {"agent.supervision"}
    assert "agent.platform.posix_files" in refused


CHILD = """\
#!/bin/sh
echo "$@" >> "$0.said"
case "$*" in *checknow*) while read -r line; do :; done; echo asked >> "$0.said" ;; esac
"""


def test_the_resident_agent_is_a_service_that_checks_and_ends_when_it_is_told(machine: Machine) -> None:
    """Its children are a script, which notes what it is started with; the last one ends when it is asked to."""
    (machine.root / "ProgramData" / "commandit" / "state" / "run").mkdir(parents=True)
    script = machine.root / "child"
    script.write_text(CHILD)
    script.chmod(0o755)
    assert machine.ask("!service", script) == {"exit": 0, "states": [4, 3, 1]}
    said = Path(f"{script}.said").read_text().splitlines()
    assert [line.split()[-1] for line in said] == ["recover", "once", "checknow", "asked"]
    assert machine.ask("!handles") == []


def test_a_whole_life_of_an_endpoint(machine: Machine, repository: Repository) -> None:
    for name in ("service", "probe"):
        publish(repository, name, "1.0.0")
    machine.run("install", "--server", repository.url, "--root", repository.root_json, "--components", "service,probe")
    assert machine.versions() == {"probe": "1.0.0", "service": "1.0.0"}
    assert machine.running() == ["commandit-service", "commandit-probe", "commandit-updater"]
    assert (machine.root / "ProgramData" / "commandit" / "updater.conf").exists()
    for name in ("service", "probe"):
        publish(repository, name, "1.1.0")
    (machine.installed / "service" / "data").mkdir()
    machine.run("once")
    assert machine.versions() == {"probe": "1.1.0", "service": "1.1.0"}
    publish(repository, "probe", "1.2.0")
    publish(repository, "service", "1.2.0", works=False)
    assert "HEALTH_FAILED" in machine.run("once", expect=1)
    assert machine.versions() == {"probe": "1.1.0", "service": "1.1.0"}
    assert "rolled" in machine.run("status") or "HEALTH_FAILED" in machine.run("status")
    told = json.loads(machine.run("status", "--json"))
    assert {one["name"]: one["version"] for one in told["installed_components"]} == machine.versions()
    assert "same" in machine.run("verify", "--json")
    machine.run("recover")
    assert len(machine.running()) == 3
    assert machine.ask("!handles") == []
    machine.run("uninstall", "--purge")
    assert machine.ask("!services") == {}
    assert machine.versions() == {}
