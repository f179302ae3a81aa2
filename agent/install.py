"""Install folders: prepared complete beside the old one, exchanged in one call, taken back (FR-CMP-002, FR-CMP-003).

Beside ``<component>`` lie, during a sequence only: ``.<component>.unpacked`` (the archive without its payload: hooks,
``package.toml``), ``.<component>.new`` (the next install folder) and ``.<component>.old`` (the backup). What an
interrupted sequence left is told by inode: the folder that was installed before is the old one, wherever it lies now.
What cannot be removed (an immutable file, something mounted) is moved aside as ``.<component>.left-<number>``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from agent import keep
from agent.codes import Code
from agent.contents import keep_listing, list_folder, listing_path
from agent.durable import sync_folder
from agent.errors import AgentError, LocalFailure, PackageRefused, as_local_failure
from agent.journal import Item
from agent.paths import Paths
from agent.platform.files import remove_any
from agent.ports import Disk
from agent.unpack import unpack
from repo_server.core.model import COMPONENT_PATTERN, Platform, ReleaseId
from repo_server.core.package import MANIFEST_NAME, PackageManifest, parse_package_toml
from repo_server.core.version import Version

MARGIN_BYTES = 32 * 1024 * 1024
UNPACKED_RATIO = 3
"""How much larger than its archive a package is taken to be, before it is unpacked."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a component's folders lie during a sequence."""

    live: Path
    new: Path
    old: Path
    unpacked: Path

    @classmethod
    def of(cls, paths: Paths, component: str) -> Places:
        """Return the places of a component."""
        live = paths.install(component)
        return cls(live, *(live.with_name(f".{component}.{kind}") for kind in ("new", "old", "unpacked")))


class Installer:
    """Prepares, exchanges and takes back install folders. Holds nothing that a restart would miss."""

    def __init__(self, paths: Paths, disk: Disk, say: Callable[[str], None] = lambda _text: None) -> None:
        """``say`` is told what had to be moved aside."""
        self._paths = paths
        self._disk = disk
        self._say = say
        self._carried: dict[str, keep.Carried] = {}

    def places(self, component: str) -> Places:
        """Return where a component's folders lie."""
        return Places.of(self._paths, component)

    def identity(self, component: str) -> int | None:
        """Return the inode of the install folder, ``None`` if there is none."""
        return _inode(self.places(component).live)

    def check_space(self, packages: dict[str, int], globs: dict[str, tuple[str, ...]]) -> None:
        """Raise ``LocalFailure(DISK_FULL)`` unless download, unpacking, kept files and a margin fit (FR-UPD-008).

        ``packages``: component → bytes of its archive; ``globs``: what each installed one preserves. The old folder
        itself is the backup and needs no more space.
        """
        download = sum(packages.values())
        unpacked = UNPACKED_RATIO * download + sum(
            keep.size(live, globs[name])
            for name in packages
            if (live := self.places(name).live).is_dir() and name in globs
        )
        same = self._paths.downloads.stat().st_dev == self._paths.install_root.stat().st_dev
        needs = {self._paths.install_root: unpacked + (download if same else 0)}
        if not same:
            needs[self._paths.downloads] = download
        for folder, needed in needs.items():
            free = self._disk.free_bytes(folder)
            if free < needed + MARGIN_BYTES:
                raise LocalFailure(
                    Code.DISK_FULL,
                    f"the update needs about {(needed + MARGIN_BYTES) >> 20} MiB on the volume of {folder}, "
                    f"{free >> 20} MiB are free; free some space, then try again",
                )

    def stage(self, item: Item, platform: Platform, archive: Path) -> PackageManifest:
        """Unpack an archive and prepare the new folder completely; the live one is not touched.

        Raises ``PackageRefused``, ``TrustRefused``, ``LocalFailure``.
        """
        places = self.places(item.component)
        self.clean(item.component)
        package = unpack(archive, places.unpacked, ReleaseId(item.component, Version(item.version), platform))
        payload = places.unpacked / package.payload
        if not payload.is_dir():
            raise PackageRefused(
                Code.PACKAGE_INVALID, f"{archive.name}: payload = {package.payload!r} is not a folder of the archive"
            )
        with as_local_failure(f"prepare {places.new}"):
            self._disk.rename(payload, places.new)
            # Before anything of the machine's own comes in.
            path = listing_path(self._paths, item.component, item.sha256)
            keep_listing(path, list_folder(places.new), self.staged_text(item.component))
            if places.live.is_dir():
                self._carried[item.component] = keep.carry(places.live, places.new, _kept(item, package))
            sync_folder(places.live.parent)
        return package

    def exchange(self, item: Item) -> None:
        """Put the new folder in place; the program must be stopped, so that what it keeps is complete.

        Raises ``LocalFailure``; whatever was done by then, ``restore`` takes back.
        """
        places = self.places(item.component)
        package = self.staged(item.component)
        with as_local_failure(f"put the new {places.live} in place"):
            if item.old_folder is None:
                self._disk.rename(places.new, places.live)
                sync_folder(places.live.parent)
                return
            before = self._carried.pop(item.component, {})
            keep.carry(places.live, places.new, _kept(item, package), before)
            if self._disk.exchange(places.new, places.live):
                self._disk.rename(places.new, places.old)
            else:
                # The journal says EXCHANGE: between these two there is no live folder, and restore() mends that.
                self._disk.rename(places.live, places.old)
                self._disk.rename(places.new, places.live)
            sync_folder(places.live.parent)

    def can_exchange(self, component: str) -> bool:
        """Whether folders beside a component's can change places in one call: two empty ones, between sequences.

        What a kill leaves of them, ``sweep`` removes. Raises ``LocalFailure``.
        """
        places = self.places(component)
        with as_local_failure(f"try to exchange folders beside {places.live}"):
            for place in (places.new, places.old):
                self._clear(place)
                place.mkdir()
            able = self._disk.exchange(places.new, places.old)
            for place in (places.new, places.old):
                place.rmdir()
        return able

    def restore(self, item: Item) -> None:
        """Put the old folder back where it was, whatever was done to it. Idempotent.

        Raises ``LocalFailure``, or ``AgentError(ROLLBACK_FAILED)`` if the old folder is nowhere.
        """
        places = self.places(item.component)
        with as_local_failure(f"restore {places.live}"):
            if item.old_folder is None:
                if places.live.exists():
                    self._clear(places.new)
                    self._disk.rename(places.live, places.new)
            elif _inode(places.live) != item.old_folder:
                self._put_back(places, item.old_folder)
            sync_folder(places.live.parent)

    def clean(self, component: str) -> None:
        """Remove everything beside the live folder, or move it aside. Idempotent. Raises ``LocalFailure``."""
        places = self.places(component)
        with as_local_failure(f"clean up beside {places.live}"):
            for left in places.live.parent.glob(f".{component}.left-*"):
                # It was said when it was moved aside, and harms nobody.
                with contextlib.suppress(OSError):
                    remove_any(left)
            for place in (places.unpacked, places.new, places.old):
                self._clear(place)
            sync_folder(places.live.parent)

    def sweep(self, installed: Collection[str], but: Collection[str]) -> None:
        """Remove what lies beside install folders while no sequence is under way. Raises ``LocalFailure``.

        ``but``: components that a person has to look at. Where the folder of an installed one is missing, nobody knows
        which of the others is still needed; all of them stay.
        """
        pattern = rf"\.({COMPONENT_PATTERN})\.(unpacked|new|old)"
        names = (re.fullmatch(pattern, path.name) for path in self._paths.install_root.glob(".*"))
        for component in sorted({match[1] for match in names if match} - frozenset(but)):
            if component not in installed or self.places(component).live.exists():
                self.clean(component)

    def staged(self, component: str) -> PackageManifest:
        """Return the ``package.toml`` of what was unpacked; raise ``LocalFailure(STATE_DAMAGED)``."""
        return parse_package_toml(self.staged_text(component).encode(), admitted=True)

    def staged_text(self, component: str) -> str:
        """Return the text of that ``package.toml``; raise ``LocalFailure(STATE_DAMAGED)`` if it is gone."""
        path = self.places(component).unpacked / MANIFEST_NAME
        try:
            return path.read_text()
        except OSError as error:
            raise LocalFailure(Code.STATE_DAMAGED, f"{path} was there and is not: {error.strerror}") from error

    def _put_back(self, places: Places, old: int) -> None:
        backup = next((place for place in (places.new, places.old) if _inode(place) == old), None)
        if backup is None:
            raise AgentError(
                Code.ROLLBACK_FAILED,
                f"the previous folder of {places.live} is neither there nor in {places.new} or {places.old}; "
                "somebody moved it. Put it back, or reinstall the component",
            )
        if not places.live.exists():
            self._disk.rename(backup, places.live)
        elif not self._disk.exchange(backup, places.live):
            failed = places.new if backup == places.old else places.old
            self._clear(failed)
            self._disk.rename(places.live, failed)
            self._disk.rename(backup, places.live)

    def _clear(self, place: Path) -> None:
        """Free a name for the next sequence; what cannot be removed must not block every later update (FR-UPD-008)."""
        try:
            remove_any(place)
        except OSError as error:
            aside = _unused(place)
            try:
                self._disk.rename(place, aside)
            except OSError:
                # Why it cannot be removed says more than why it cannot be moved.
                raise error from None
            why = f"{error.strerror}: {error.filename or place}"
            how = "it goes at the next boot" if self._goes_at_boot(aside) else "remove it by hand"
            self._say(f"{place} cannot be removed ({why}); it lies in {aside} now, {how}")

    def _goes_at_boot(self, path: Path) -> bool:
        try:
            return self._disk.remove_at_boot(path)
        except OSError:
            # It was moved aside, and blocks nothing.
            return False


def _kept(item: Item, package: PackageManifest) -> tuple[str, ...]:
    return () if item.clean else package.preserve


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def _unused(place: Path) -> Path:
    component = place.name.removeprefix(".").partition(".")[0]
    names = (place.with_name(f".{component}.left-{number}") for number in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))
