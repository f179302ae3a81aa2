"""A whole Linux machine with a real booted systemd, in a container of its own, whose power can be cut."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.endpoints import Endpoint, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE_VARIABLE = "COMMANDIT_TEST_CACHE"
"""A folder that outlives a checkout, so that the machine's files are fetched once."""
TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
PACKAGES = ("systemd", "systemd-sysv", "libpam-systemd", "dbus", "passwd", "python3")
BOOT_SECONDS = 90.0
_HIERARCHIES = [Path("/sys/fs/cgroup") / name for name in (".", "unified", "systemd")]
_QUIET_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}


def why_not() -> str | None:
    """Return why no machine can be booted here, ``None`` if one can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "booting a machine needs root on Linux"
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    return f"Debian packages are missing: {', '.join(missing)}" if missing else None


def base_system(cache: Path) -> Path:
    """Return a folder with a minimal Debian of this machine's own release; made once, then kept."""
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"debian-{hashlib.sha256(repr(PACKAGES).encode()).hexdigest()[:8]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "complete").exists():
            shutil.rmtree(made, ignore_errors=True)
            release, mirror = own_sources()
            made.mkdir()
            # A third of what debootstrap takes.
            command = ["mmdebstrap", "--mode=root", "--variant=essential", f"--include={','.join(PACKAGES)}"]
            with (cache / "mmdebstrap.log").open("w") as log:
                subprocess.run([*command, release, made / "root", mirror], check=True, stdout=log, stderr=log)
            (made / "complete").touch()
    return made / "root"


def own_sources() -> tuple[str, str]:
    """Return this machine's Debian release and the mirror that its own apt uses for it."""
    words = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    release = words["VERSION_CODENAME"].strip('"')
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    found = dict(reversed([line.split(" ", 1) for line in listed]))
    assert release in found, f"apt has no source for {release}; expected one in /etc/apt/sources.list.d"
    return release, found[release]


@dataclass
class Machine(Endpoint):
    """One machine: its disk is ``root``, seen from here; commands run inside."""

    root: Path
    console: Path
    binds: list[str] = field(default_factory=list)
    """More folders that it sees, read-only: ``HERE:THERE``."""
    _nspawn: subprocess.Popen[bytes] | None = None
    _name: str = field(default_factory=lambda: f"commandit-{uuid.uuid4().hex[:12]}")

    def __post_init__(self) -> None:
        super().__init__(self.root)

    def boot(self) -> None:
        """Switch it on, and wait until it has booted."""
        folders = dict.fromkeys(str(path) for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix)))
        binds = [f"--bind-ro={folder}" for folder in (*folders, *self.binds) if not folder.startswith("/usr")]
        with self.console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", f"--machine={self._name}",
                 "--console=pipe", f"--directory={self.root}", *binds],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, preexec_fn=self._enter_own_groups,  # noqa: PLW1509 -- it only writes files
            )  # fmt: skip
        wait_until(self._has_booted, f"the machine has booted, see {self.console}", BOOT_SECONDS)

    def cut_power(self) -> None:
        """End everything in it at once. What it had written stays, as on a disk whose cache was flushed."""
        if self._nspawn is not None:
            leader = self._leader()
            if leader is not None:
                os.kill(leader, signal.SIGKILL)
            else:
                self._nspawn.kill()
            self._nspawn.wait(30)
            self._nspawn = None
        for group in self._own_groups():
            for folder in sorted(group.rglob("*/"), reverse=True):
                wait_until(lambda folder=folder: _removed(folder), f"{folder} is empty")
            wait_until(lambda group=group: _removed(group), f"{group} is empty")

    def do(
        self, *command: str | Path, expect: int | None = 0, timeout: float = 100
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        result = subprocess.run(
            self.inside(*command), capture_output=True, text=True, check=False, timeout=timeout, env=_QUIET_ENVIRONMENT
        )
        assert expect is None or result.returncode == expect, (
            f"{command} ended with {result.returncode}:\n{result.stdout}{result.stderr}\n{self.log()[-6000:]}"
        )
        return result

    def inside(self, *command: str | Path) -> list[str]:
        """Return a command line that runs a command inside."""
        leader = self._leader()
        assert leader is not None, f"the machine is off, see {self.console}"
        return ["nsenter", f"--target={leader}", "--all", "--", *map(str, command)]

    def agent(self, *arguments: str | Path, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run the agent inside."""
        return self.do(sys.executable, "-m", "agent", *arguments, expect=expect)

    def show(self, unit: str, name: str) -> str:
        """Return a property that systemd has of a unit."""
        return self.do("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def is_active(self, unit: str) -> bool:
        return self.show(unit, "ActiveState") == "active"

    def _own_groups(self) -> list[Path]:
        """Return the machine's control groups: without them two machines would share the groups of their services."""
        return [folder / self._name for folder in _HIERARCHIES if (folder / "cgroup.procs").exists()]

    def _enter_own_groups(self) -> None:
        for group in self._own_groups():
            group.mkdir(exist_ok=True)
            (group / "cgroup.procs").write_text("0")

    def _leader(self) -> int | None:
        if self._nspawn is None or self._nspawn.poll() is not None:
            return None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def _has_booted(self) -> bool:
        assert self._nspawn is None or self._nspawn.poll() is None, self.console.read_text(errors="replace")[-3000:]
        if self._leader() is None:
            return False
        said = self.do("systemctl", "is-system-running", expect=None).stdout.strip()
        return said in {"running", "degraded"}


def _removed(group: Path) -> bool:
    """Remove a control group; one in which something is still dying stays for now."""
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@contextlib.contextmanager
def machine_on(base: Path, folder: Path) -> Iterator[Machine]:
    """Give a machine, switched off, whose disk is a layer over a base system; afterwards all of it goes."""
    layers = [folder / name for name in ("upper", "work", "disk")]
    for layer in layers:
        layer.mkdir(parents=True)
    upper, work, disk = layers
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={base},upperdir={upper},workdir={work}", disk],
        check=True,
    )
    try:
        machine = Machine(disk, folder / "console.log")
        try:
            yield machine
        finally:
            machine.cut_power()
    finally:
        subprocess.run(["umount", disk], check=True)


def cache_folder(config: pytest.Config) -> Path:
    """Return where the base system is kept."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    assert config.cache is not None, f"without pytest's cache, name a folder in {CACHE_VARIABLE}"
    return Path(config.cache.mkdir("machine"))
