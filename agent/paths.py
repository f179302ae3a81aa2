"""Where everything lies (design §11). ``--root-dir`` relocates every path, so that an endpoint fits in one folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from agent.codes import Code
from agent.durable import sync_folder
from agent.errors import ConfigInvalid, local_failure
from agent.platform.access import ACCESS
from agent.platform.places import POSIX, Places

PRIVATE_FOLDER = 0o700


@dataclass(frozen=True, slots=True)
class Paths:
    """Every path of the agent. Constructing it touches nothing; ``create`` makes the folders."""

    root_dir: Path = Path("/")
    manifest_at: str | None = None
    """``component_manifest_path`` of the configuration; below ``root_dir`` like everything else."""
    log_at: str | None = None
    root_at: str | None = None
    places: Places = POSIX
    """Where the folders lie on this system."""

    def configured(self, manifest: str | None, log: str | None, root: str | None) -> Self:
        """Return the same paths with those that the configuration moves; ``None`` keeps the default."""
        return replace(self, manifest_at=manifest, log_at=log, root_at=root)

    @property
    def is_whole_machine(self) -> bool:
        """Whether this is the machine's own endpoint, and not one that was relocated into a folder."""
        return self.root_dir == Path(self.root_dir.anchor)

    @property
    def config_folder(self) -> Path:
        """``etc/commandit``, on Windows ``ProgramData/commandit``."""
        return self.root_dir / self.places.config

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
        """The state folder, ``var/lib/commandit``, on Windows ``ProgramData/commandit/state``."""
        return self.root_dir / self.places.state

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
        """The folder of the install folders, ``opt/commandit``, on Windows ``Program Files/commandit``."""
        return self.root_dir / self.places.install

    def install(self, component: str) -> Path:
        """Return a component's install folder."""
        return self.install_root / component

    def create(self) -> None:
        """Make every folder, with private permissions; one that is there is tightened (NFR-SEC-007).

        Raises ``ConfigInvalid`` (CONFIG_UNSAFE) for a folder of another user, ``LocalFailure`` otherwise.
        """
        for folder in (self.config_folder, self.state, self.staging, self.downloads, self.spool, self.run):
            _make(folder, private=True)
        # Programs in here may run as other users.
        _make(self.install_root, private=False)
        for file in (self.manifest, self.log):
            if not file.parent.exists():
                _make(file.parent, private=True)

    def _moved(self, to: str | None, default: Path) -> Path:
        if to is None:
            return default
        # A whole machine may have several drives.
        return Path(to) if self.is_whole_machine else self.root_dir / Path(to).relative_to(Path(to).anchor)


def _make(folder: Path, *, private: bool) -> None:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        flaw = ACCESS.make_folder(folder, private=private)
        for made in reversed(missing):
            # What is made durable in it later would be lost with its name.
            sync_folder(made.parent)
    except OSError as error:
        raise local_failure(error, f"make the folder {folder}") from error
    if flaw is not None:
        raise ConfigInvalid(Code.CONFIG_UNSAFE, f"{flaw.found}. Run: {flaw.command}")
