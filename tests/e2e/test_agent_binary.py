"""The real build: one executable installs a machine, and the agent that it leaves there replaces itself.

FR-BST-001, FR-SUP-001, TR-PACK-001, NFR-PER-001. It is built once; the second version is the same build under another.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import PLATFORM, Package
from support.endpoints import Endpoint, endpoint_in, wait_until
from support.machine import ROOT

REPOTOOL = Path(sys.executable).with_name("repotool")
MOST_KIB = 14 * 1024


def run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def build(out: Path, root_json: Path) -> Path:
    """Build version 1.0.0, and return the folder of its component."""
    script = ROOT / "tools/binary/build.py"
    run(sys.executable, script, "--version", "1.0.0", "--root-json", root_json, "--out", out)
    return out / "updater"


def publish(repository: Repository, folder: Path, version: str, *, spoil: str | None = None) -> None:
    """Pack a build as another version, as an operator does, and publish it."""
    copy = folder.with_name(f"updater-{version}")
    shutil.copytree(folder, copy)
    for path in (copy / "package.toml", copy / "files/bin/_internal/agent/built/package.toml"):
        text = path.read_text().replace('version = "1.0.0"', f'version = "{version}"')
        path.write_text(text.replace("probation_seconds = 10", "probation_seconds = 1"))
    (copy / "files/bin/_internal/agent/built/version").write_text(version)
    if spoil is not None:
        (copy / "files/bin" / spoil).write_bytes(bytes(1000))
    run(REPOTOOL, "pack", copy, "-o", folder.parent)
    name = f"updater-{PLATFORM}-{version}.tar.gz"
    repository.publish(name, (folder.parent / name).read_bytes())


@contextmanager
def resident(endpoint: Endpoint) -> Iterator[subprocess.Popen[bytes]]:
    program = endpoint.paths.install("updater") / "bin/commandit-updater"
    with subprocess.Popen([program, "--root-dir", endpoint.root, "run"], stderr=subprocess.DEVNULL) as agent:
        try:
            wait_until((endpoint.paths.run / "update.sock").exists, "it listens")
            yield agent
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0
        finally:
            agent.kill()


def installed_inode(endpoint: Endpoint) -> int:
    return (endpoint.paths.install("updater") / "bin/commandit-updater").stat().st_ino


def runs_installed(agent: subprocess.Popen[bytes], endpoint: Endpoint) -> bool:
    return Path(f"/proc/{agent.pid}/exe").stat().st_ino == installed_inode(endpoint)


def resident_kib(agent: subprocess.Popen[bytes]) -> int:
    return int(Path(f"/proc/{agent.pid}/status").read_text().split("VmRSS:")[1].split()[0])


@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="PyInstaller needs the Debian package binutils")
def test_one_executable_installs_a_machine_and_the_agent_there_replaces_itself(tmp_path: Path) -> None:
    with Repository(tmp_path / "downloads") as repository, endpoint_in(tmp_path / "endpoint") as endpoint:
        folder = build(tmp_path / "dist", repository.root_json)
        repository.publish(Package("service", "1.0.0").name, Package("service", "1.0.0").build())
        said = endpoint.run(
            "install", "--server", repository.url, "--components", "service", "--service-manager", "process",
            command=(str(tmp_path / "dist/commandit-updater"),),
        ).stdout  # fmt: skip
        assert "Installed: updater 1.0.0, service 1.0.0" in said, "without --root: it was built in"
        (tmp_path / "dist/commandit-updater").unlink()
        program = (str(endpoint.paths.install("updater") / "bin/commandit-updater"),)
        endpoint.run("verify", command=program)
        with resident(endpoint) as agent:
            before = installed_inode(endpoint)
            publish(repository, folder, "2.0.0")
            agent.send_signal(signal.SIGHUP)
            wait_until(lambda: installed_inode(endpoint) != before, "2.0.0 is committed", 120)
            wait_until(lambda: runs_installed(agent, endpoint), "2.0.0 is resident")
            wait_until(lambda: not endpoint.paths.journal.exists(), "the sequence is over")
            publish(repository, folder, "3.0.0", spoil="_internal/base_library.zip")
            agent.send_signal(signal.SIGHUP)
            wait_until(lambda: len(repository.final("updater")) == 3, "the broken one has failed", 120)
            assert "Failed to start" in endpoint.run("checknow", command=program, expect=1).stderr
            wait_until(lambda: "poll" in Path(f"/proc/{agent.pid}/wchan").read_text(), "the daemon waits")
            assert resident_kib(agent) <= MOST_KIB
        records = repository.final("updater")
        assert [(one.requested_version, one.status) for one in records] == [
            ("1.0.0", "success"), ("2.0.0", "success"), ("3.0.0", "failed"), ("3.0.0", "failed")
        ]  # fmt: skip
        assert endpoint.installed() == {"service": "1.0.0", "updater": "2.0.0"}
        assert repository.checks[-1].updater_version == "2.0.0"
        assert endpoint.leftovers() == []
        endpoint.run("uninstall", "--purge", command=program)
        assert not endpoint.paths.install_root.exists()
        assert not endpoint.paths.state.exists()
