"""An endpoint in one folder: runs the real agent in processes of its own, and looks at what it did."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simulators.repository import Repository

from agent.paths import Paths
from support.prepared import can_be_prepared, run_prepared

AGENT = (sys.executable, "-m", "agent")
KILLER = Path(__file__).resolve().parent.parent / "faults" / "killed_agent.py"
_IMPORTED = "agent.floor agent.cycle agent.cli"
_PREPARED = {
    AGENT: f"{_IMPORTED} agent.__main__:main",
    (sys.executable, str(KILLER)): f"{_IMPORTED} faults.killed_agent:main",
}
"""How a command line begins whose programs can be forked → what they import."""


class Endpoint:
    """A relocated endpoint."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = Paths(root)

    def run(
        self,
        *arguments: str | Path,
        expect: int | None = 0,
        command: Sequence[str] = AGENT,
        env: Mapping[str, str] = {},
    ) -> subprocess.CompletedProcess[str]:
        """Run the agent to its end; another exit code than expected fails the test."""
        words = [*command, "--root-dir", str(self.root), *map(str, arguments)]
        environment = {**os.environ, **env}
        start = next((start for start in _PREPARED if tuple(words[: len(start)]) == start), None)
        if start is not None and can_be_prepared(environment):
            more = words[len(start) :]
            done = run_prepared(_PREPARED[start], start[-1], more, env=environment, cwd=Path.cwd())
        else:
            done = subprocess.run(words, capture_output=True, check=False, timeout=100, env=environment)
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        said = f"{' '.join(map(str, arguments))} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
        assert expect is None or result.returncode == expect, f"{said}\n{self.log()[-6000:]}"
        return result

    def install(
        self, repository: Repository, *components: str, expect: int | None = 0, more: Sequence[str] = ()
    ) -> None:
        names = ",".join(components or ("service", "ui", "probe"))
        self.run(
            "install", "--server", repository.url, "--root", repository.root_json, "--components", names,
            "--service-manager", "process", *more, expect=expect,
        )  # fmt: skip

    def once(self, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.run("once", expect=expect)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return answer

    def installed(self) -> dict[str, str]:
        """Return what the manifest says: component → version."""
        with suppress(FileNotFoundError):
            return {one["name"]: one["version"] for one in json.loads(self.paths.manifest.read_text())["components"]}
        return {}

    def versions(self) -> dict[str, str]:
        """Return what lies in the install folders: component → content of VERSION."""
        return {path.parent.name: path.read_text() for path in self.paths.install_root.glob("[a-z]*/VERSION")}

    def leftovers(self) -> list[str]:
        """Return what an update must not leave behind."""
        found = [*self.paths.install_root.glob(".*"), *self.paths.downloads.iterdir(), *self.paths.staging.iterdir()]
        found += [self.paths.journal] if self.paths.journal.exists() else []
        return sorted(str(path.relative_to(self.root)) for path in found)

    def log(self) -> str:
        with suppress(FileNotFoundError):
            return self.paths.log.read_text()
        return ""

    def processes(self) -> dict[str, list[int]]:
        """Return the live programs of components: component → process ids of session leaders below this endpoint."""
        found: dict[str, list[int]] = {}
        for pid, component in self._programs():
            found.setdefault(component, []).append(pid)
        return found

    def runs_live(self, component: str) -> bool:
        """Whether exactly one program of a component runs, and from the folder that is installed now."""
        pids = self.processes().get(component, [])
        if len(pids) == 1:
            # Either may go while we look.
            with suppress(FileNotFoundError):
                return Path(f"/proc/{pids[0]}/cwd").stat().st_ino == self.paths.install(component).stat().st_ino
        return False

    def kill_all(self) -> None:
        """End every program that was started in here, as a power cut would."""
        for pid, _ in self._programs(leaders_only=False):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _programs(self, *, leaders_only: bool = True) -> Iterator[tuple[int, str]]:
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            with suppress(OSError):
                if not str((process / "cwd").readlink()).startswith(f"{self.root}/"):
                    continue
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                pairs = (item.partition(b"=") for item in (process / "environ").read_bytes().split(b"\0"))
                environment = {name.decode(): value.decode() for name, _, value in pairs}
                is_leader = fields[3] == process.name
                if fields[0] != "Z" and "COMMANDIT_LAUNCH" in environment and (is_leader or not leaders_only):
                    yield int(process.name), environment["COMMANDIT_COMPONENT"]


@contextmanager
def endpoint_in(folder: Path) -> Iterator[Endpoint]:
    """Give an endpoint, and end all its programs afterwards."""
    endpoint = Endpoint(folder)
    try:
        yield endpoint
    finally:
        endpoint.kill_all()


def tree_hash(folder: Path) -> dict[str, str]:
    """Return what a folder holds: relative path → kind, mode and digest."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = oct(path.lstat().st_mode)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = f"{mode} {content}"
    return found


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait for a condition, generously."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s until {what}"
        time.sleep(0.05)
    return result
