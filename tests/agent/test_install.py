"""Install folders: exchanged and taken back, also where the file system cannot exchange (FR-CMP-002, FR-CMP-003)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.components import PLATFORM, Package

from agent.codes import Code
from agent.errors import AgentError
from agent.install import Installer
from agent.journal import Item
from agent.paths import Paths
from agent.platform.linux import LinuxDisk, exchange
from repo_server.core.wire import Action


class OldDisk(LinuxDisk):
    """A file system without an atomic exchange."""

    def exchange(self, one: Path, other: Path) -> bool:  # noqa: ARG002 -- the port's signature
        return False


class SmallDisk(LinuxDisk):
    """A volume with a given number of free bytes."""

    def __init__(self, free: int) -> None:
        self.free = free

    def free_bytes(self, folder: Path) -> int:  # noqa: ARG002 -- the port's signature
        return self.free


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    paths.create()
    return paths


@pytest.fixture(params=[LinuxDisk, OldDisk])
def installer(paths: Paths, request: pytest.FixtureRequest) -> Installer:
    return Installer(paths, request.param())


def item_of(installer: Installer, version: str = "1.1.0") -> Item:
    identity = installer.identity("service")
    old = None if identity is None else "1.0.0"
    return Item("service", version, old, Action.UPDATE, "ab" * 32, "", identity)


def stage(installer: Installer, paths: Paths, item: Item) -> None:
    archive = paths.downloads / "archive"
    archive.write_bytes(Package("service", item.version).build())
    installer.stage(item, PLATFORM, archive)


def live(paths: Paths) -> str:
    return (paths.install("service") / "VERSION").read_text()


def install(installer: Installer, paths: Paths, version: str = "1.0.0") -> None:
    item = item_of(installer, version)
    stage(installer, paths, item)
    installer.exchange(item)
    installer.clean("service")


def test_two_folders_are_exchanged_in_one_call(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    assert exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "name").read_text() == "other"
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "nowhere")


def test_the_new_folder_comes_and_the_old_one_is_the_backup(installer: Installer, paths: Paths) -> None:
    install(installer, paths)
    item = item_of(installer)
    stage(installer, paths, item)
    assert live(paths) == "1.0.0", "staging touches nothing"
    installer.exchange(item)
    assert live(paths) == "1.1.0"
    assert (paths.install_root / ".service.old" / "VERSION").read_text() == "1.0.0"
    installer.clean("service")
    assert [path.name for path in paths.install_root.iterdir()] == ["service"]


def test_whatever_was_done_is_taken_back_and_taking_back_again_changes_nothing(
    installer: Installer, paths: Paths
) -> None:
    install(installer, paths)
    item = item_of(installer)
    for far in range(2):
        stage(installer, paths, item)
        if far:
            installer.exchange(item)
        for _ in range(3):
            installer.restore(item)
            assert live(paths) == "1.0.0"
            assert installer.identity("service") == item.old_folder
        installer.clean("service")


@pytest.mark.parametrize("place", ["old", "new"])
def test_a_folder_that_is_missing_in_between_comes_back(installer: Installer, paths: Paths, place: str) -> None:
    """Between the two renames of a file system without exchange."""
    install(installer, paths)
    item = item_of(installer)
    stage(installer, paths, item)
    if place == "new":
        installer.clean("service")
    paths.install("service").rename(paths.install_root / f".service.{place}")
    installer.restore(item)
    assert live(paths) == "1.0.0"


def test_a_first_installation_is_taken_back_to_nothing(installer: Installer, paths: Paths) -> None:
    item = item_of(installer)
    stage(installer, paths, item)
    installer.exchange(item)
    assert live(paths) == "1.1.0"
    for _ in range(2):
        installer.restore(item)
        assert not paths.install("service").exists()
    installer.clean("service")
    assert list(paths.install_root.iterdir()) == []


def test_a_backup_that_is_nowhere_is_said_and_nothing_is_removed(installer: Installer, paths: Paths) -> None:
    """FR-RBK-002."""
    install(installer, paths)
    item = replace(item_of(installer), old_folder=1)
    with pytest.raises(AgentError, match="reinstall the component") as caught:
        installer.restore(item)
    assert caught.value.code is Code.ROLLBACK_FAILED
    assert live(paths) == "1.0.0"


def test_an_archive_without_its_payload_folder_is_refused(installer: Installer, paths: Paths) -> None:
    """L42."""

    class Odd(Package):
        @property
        def manifest(self) -> str:
            return super().manifest.replace('payload = "files"', 'payload = "elsewhere"')

    archive = paths.downloads / "archive"
    archive.write_bytes(Odd("service", "1.1.0").build())
    with pytest.raises(AgentError, match="elsewhere") as caught:
        installer.stage(item_of(installer), PLATFORM, archive)
    assert caught.value.code is Code.PACKAGE_INVALID


def test_too_little_space_is_said_before_anything_starts(paths: Paths) -> None:
    """FR-UPD-008."""
    installer = Installer(paths, SmallDisk(100 << 20))
    installer.check_space({"service": 1 << 20}, {})
    with pytest.raises(AgentError, match="free some space") as caught:
        installer.check_space({"service": 30 << 20}, {})
    assert caught.value.code is Code.DISK_FULL


def test_kept_files_need_space_as_well(paths: Paths) -> None:
    """FR-UPD-008."""
    installer = Installer(paths, LinuxDisk())
    install(installer, paths)
    data = paths.install("service") / "data"
    data.mkdir()
    with (data / "big").open("wb") as file:
        file.truncate(90 << 20)
    small = Installer(paths, SmallDisk(100 << 20))
    small.check_space({"service": 1 << 20}, {"service": ()})
    with pytest.raises(AgentError, match="MiB"):
        small.check_space({"service": 1 << 20}, {"service": ("data/**",)})


@contextmanager
def immutable(file: Path) -> Iterator[None]:
    """Make a file undeletable, wherever its folder is moved to."""
    if os.geteuid() != 0 or subprocess.run(["chattr", "+i", str(file)], capture_output=True, check=False).returncode:
        pytest.skip("immutable files need root and a file system that has them")
    descriptor = os.open(file, os.O_RDONLY)
    try:
        yield
    finally:
        now = Path(f"/proc/self/fd/{descriptor}").readlink()
        os.close(descriptor)
        subprocess.run(["chattr", "-i", str(now)], check=True)


@pytest.mark.root
def test_a_leftover_that_cannot_be_removed_is_moved_aside_and_blocks_no_later_update(paths: Paths) -> None:
    """FR-UPD-008."""
    said: list[str] = []
    installer = Installer(paths, LinuxDisk(), said.append)
    install(installer, paths)
    with immutable(paths.install("service") / "VERSION"):
        for version in ("1.1.0", "1.2.0"):
            install(installer, paths, version)
            assert live(paths) == version
        left = paths.install_root / ".service.left-1"
        assert (left / "VERSION").read_text() == "1.0.0"
        (message,) = said
        assert str(left) in message
        assert "Operation not permitted" in message
    installer.clean("service")
    assert [path.name for path in paths.install_root.iterdir()] == ["service"]


@pytest.mark.root
def test_a_leftover_that_cannot_be_removed_does_not_stop_the_way_back(paths: Paths) -> None:
    """FR-RBK-002: of a first installation, which goes to where the leftover lies."""
    installer = Installer(paths, LinuxDisk())
    item = item_of(installer)
    stage(installer, paths, item)
    installer.exchange(item)
    (paths.install_root / ".service.new").mkdir()
    stuck = paths.install_root / ".service.new" / "stuck"
    stuck.touch()
    with immutable(stuck):
        installer.restore(item)
        assert not paths.install("service").exists()
        assert (paths.install_root / ".service.left-1" / "stuck").exists()


def test_trying_whether_folders_can_be_exchanged_changes_nothing(paths: Paths, installer: Installer) -> None:
    """FR-SUP-002: an agent that could be gone after a power cut is not replaced."""
    places = installer.places("updater")
    places.live.mkdir()
    (places.live / "name").write_text("updater")
    (places.old / "left").mkdir(parents=True)
    before = places.live.lstat().st_ino
    assert installer.can_exchange("updater") is (type(installer._disk) is LinuxDisk)
    assert places.live.lstat().st_ino == before
    assert [path.name for path in paths.install_root.iterdir()] == ["updater"]
    assert (places.live / "name").read_text() == "updater"
