"""Where everything lies (design §11). ``--root-dir`` relocates every path, so that an endpoint fits in one folder."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from agent.codes import Code
from agent.errors import ConfigInvalid, local_failure

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
PUBLIC_FOLDER = 0o755


@dataclass(frozen=True, slots=True)
class Paths:
    """Every path of the agent. Constructing it touches nothing; ``create`` makes the folders."""

    root_dir: Path = Path("/")
    manifest_at: str | None = None
    """``component_manifest_path`` of the configuration; below ``root_dir`` like everything else."""
    log_at: str | None = None
    root_at: str | None = None

    def configured(self, manifest: str | None, log: str | None, root: str | None) -> Self:
        """Return the same paths with those that the configuration moves; ``None`` keeps the default."""
        return replace(self, manifest_at=manifest, log_at=log, root_at=root)

    @property
    def is_whole_machine(self) -> bool:
        """Whether this is the machine's own endpoint, and not one that was relocated into a folder."""
        return self.root_dir == Path("/")

    @property
    def config_folder(self) -> Path:
        """``etc/commandit``."""
        return self.root_dir / "etc" / "commandit"

    @property
    def config(self) -> Path:
        """``updater.conf``."""
        return self.config_folder / "updater.conf"

    @property
    def root_json(self) -> Path:
        """The pinned root of trust."""
        return self._moved(self.root_at, self.config_folder / "root.json")

    @property
    def state(self) -> Path:
        """The state folder, ``var/lib/commandit``."""
        return self.root_dir / "var" / "lib" / "commandit"

    @property
    def manifest(self) -> Path:
        """What is installed."""
        return self._moved(self.manifest_at, self.state / "manifest.json")

    @property
    def status(self) -> Path:
        """What scripts and people read."""
        return self.state / "status.json"

    @property
    def log(self) -> Path:
        """The log, JSON lines."""
        return self._moved(self.log_at, self.state / "updater.log")

    @property
    def journal(self) -> Path:
        """The journal of the running operation."""
        return self.state / "journal"

    @property
    def floor(self) -> Path:
        """The floor file."""
        return self.state / "floor.json"

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.state / "lock"

    @property
    def staging(self) -> Path:
        """Unpacked packages on their way."""
        return self.state / "staging"

    @property
    def downloads(self) -> Path:
        """Package files on their way."""
        return self.state / "downloads"

    @property
    def spool(self) -> Path:
        """Records that the server has not taken yet."""
        return self.state / "spool"

    @property
    def run(self) -> Path:
        """Pid files."""
        return self.state / "run"

    @property
    def install_root(self) -> Path:
        """The folder of the install folders, ``opt/commandit``."""
        return self.root_dir / "opt" / "commandit"

    def install(self, component: str) -> Path:
        """Return a component's install folder."""
        return self.install_root / component

    def create(self) -> None:
        """Make every folder, with private permissions; one that is there is tightened (NFR-SEC-007).

        Raises ``ConfigInvalid`` (CONFIG_UNSAFE) for a folder of another user, ``LocalFailure`` otherwise.
        """
        for folder in (self.config_folder, self.state, self.staging, self.downloads, self.spool, self.run):
            _make(folder, PRIVATE_FOLDER)
        # Programs in here may run as other users.
        _make(self.install_root, PUBLIC_FOLDER)
        for file in (self.manifest, self.log):
            if not file.parent.exists():
                _make(file.parent, PRIVATE_FOLDER)

    def _moved(self, to: str | None, default: Path) -> Path:
        return default if to is None else self.root_dir / Path(to).relative_to(Path(to).anchor)


def _make(folder: Path, mode: int) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=mode, exist_ok=True)
        status = folder.stat()
        if status.st_uid not in {0, os.geteuid()}:
            raise ConfigInvalid(
                Code.CONFIG_UNSAFE,
                f"{folder} belongs to user {status.st_uid}, who could change what is installed; "
                f"expected root. Run: chown root {folder}",
            )
        if stat.S_IMODE(status.st_mode) & ~mode & 0o777:
            folder.chmod(mode)
    except OSError as error:
        raise local_failure(error, f"make the folder {folder}") from error
