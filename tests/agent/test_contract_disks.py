"""The contract of the port ``Disk``, on every adapter, and what is each one's own (FR-CMP-003, FR-UPD-008)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.windows import WindowsSimulator
from support.managers import QuickClock

from agent.platform import linux, macos, win32
from agent.platform.linux import LinuxDisk
from agent.platform.macos import MacDisk
from agent.platform.patience import PATIENCE_SECONDS
from agent.platform.win32 import WindowsFailure
from agent.platform.windows_access import PRIVATE, PUBLIC, protect
from agent.platform.windows_disk import WindowsDisk
from agent.ports import Disk


def swap(one: bytes, other: bytes, flags: int) -> int:
    """``renamex_np`` by Linux's own call."""
    assert flags == 2
    try:
        return 0 if linux.exchange(Path(os.fsdecode(one)), Path(os.fsdecode(other))) else errno.ENOTSUP
    except OSError as error:
        return error.errno or errno.EIO


def windows_disk(simulator: WindowsSimulator | None = None) -> WindowsDisk:
    return WindowsDisk((simulator or WindowsSimulator("", {})).api(), QuickClock())


DISKS: dict[str, Callable[[], Disk]] = {
    "linux": LinuxDisk,
    "macos": lambda: MacDisk(swap),
    "macos-hfs": lambda: MacDisk(lambda one, other, flags: errno.ENOTSUP),  # noqa: ARG005 -- the call's signature
    "windows": windows_disk,
}


@pytest.fixture(params=sorted(DISKS))
def disk(request: pytest.FixtureRequest) -> Disk:
    return DISKS[request.param]()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path / "one", tmp_path / "other"


def test_two_folders_change_places_or_nothing_changes_and_it_is_said(disk: Disk, folders: tuple[Path, Path]) -> None:
    one, other = folders
    before = ("one", "other")
    after = ("other", "one") if disk.exchange(one, other) else before
    assert ((one / "file").read_text(), (other / "file").read_text()) == after


def test_those_that_can_exchange_say_so(folders: tuple[Path, Path]) -> None:
    can = {name: make().exchange(*folders) for name, make in DISKS.items()}
    assert can == {"linux": True, "macos": True, "macos-hfs": False, "windows": False}


def test_a_folder_is_renamed_whole(disk: Disk, folders: tuple[Path, Path]) -> None:
    one, _ = folders
    inode = one.stat().st_ino
    disk.rename(one, one.with_name("third"))
    assert one.with_name("third").stat().st_ino == inode
    assert not one.exists()


def test_what_is_not_there_cannot_be_renamed(disk: Disk, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk.rename(tmp_path / "none", tmp_path / "third")


@pytest.mark.parametrize("name", ["linux", "macos"])
def test_an_exchange_with_what_is_not_there_is_an_error_and_no_answer(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DISKS[name]().exchange(tmp_path / "none", tmp_path)


def test_there_is_room_on_this_volume(disk: Disk, tmp_path: Path) -> None:
    assert disk.free_bytes(tmp_path) > 0


def test_where_there_is_no_renamex_np_it_cannot_exchange(folders: tuple[Path, Path]) -> None:
    """The real call, on a system that does not have it."""
    assert macos.renamex_np(b"/nowhere", b"/nowhere", 2) in {errno.ENOSYS, errno.ENOENT}
    one, other = folders
    assert MacDisk().exchange(one, other) is hasattr(os, "chflags")


@pytest.mark.parametrize(
    "number", [win32.ERROR_SHARING_VIOLATION, win32.ERROR_LOCK_VIOLATION, win32.ERROR_ACCESS_DENIED]
)
def test_on_windows_a_held_file_is_waited_for(number: int, folders: tuple[Path, Path]) -> None:
    simulator = WindowsSimulator("", {}, failing={"MoveFileExW": [number] * 3})
    one, _ = folders
    windows_disk(simulator).rename(one, one.with_name("third"))
    assert simulator.calls.count("MoveFileExW") == 4
    assert (one.with_name("third") / "file").read_text() == "one"


def test_on_windows_a_file_that_is_never_let_go_is_an_error_after_a_while(folders: tuple[Path, Path]) -> None:
    simulator = WindowsSimulator("", {}, failing={"MoveFileExW": [win32.ERROR_SHARING_VIOLATION] * 10_000})
    one, _ = folders
    with pytest.raises(PermissionError, match="held by another program"):
        windows_disk(simulator).rename(one, one.with_name("third"))
    assert PATIENCE_SECONDS < simulator.calls.count("MoveFileExW") < 3 * PATIENCE_SECONDS
    assert one.exists()


def test_what_cannot_be_removed_goes_at_boot_where_the_system_does_that(tmp_path: Path) -> None:
    """On Windows each file, then each folder; a link goes itself, and not what it leads to."""
    folder = tmp_path / "left"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "serve.exe").write_text("held")
    (folder / "link").symlink_to(tmp_path)
    simulator = WindowsSimulator("", {})
    for name in ("linux", "macos"):
        assert not DISKS[name]().remove_at_boot(folder)
    assert windows_disk(simulator).remove_at_boot(folder)
    names = [str(folder / name) for name in ("bin/serve.exe", "link", "bin")]
    assert sorted(simulator.moves[:-1]) == sorted((name, None, 4) for name in names)
    assert simulator.moves.index((names[0], None, 4)) < simulator.moves.index((names[2], None, 4))
    assert simulator.moves[-1] == (str(folder), None, 4)
    simulator.failing["MoveFileExW"] = [win32.ERROR_ACCESS_DENIED]
    with pytest.raises(PermissionError):
        windows_disk(simulator).remove_at_boot(folder)


def test_on_windows_any_other_error_is_not_waited_for(folders: tuple[Path, Path]) -> None:
    simulator = WindowsSimulator("", {}, failing={"MoveFileExW": [win32.ERROR_DISK_FULL] * 10_000})
    with pytest.raises(OSError, match="MoveFileExW: Windows error 112") as caught:
        windows_disk(simulator).rename(*folders)
    assert caught.value.errno == errno.ENOSPC
    assert simulator.calls.count("MoveFileExW") == 1


@pytest.mark.parametrize("descriptor", [PRIVATE, PUBLIC])
def test_a_protected_folder_inherits_nothing_and_belongs_to_administrators(tmp_path: Path, descriptor: str) -> None:
    simulator = WindowsSimulator("", {})
    protect(simulator.api(), tmp_path, descriptor)
    owner_dacl_protected = 0x8000_0005
    assert simulator.security == {str(tmp_path): (descriptor, owner_dacl_protected)}
    assert simulator._memory == {}


@pytest.mark.parametrize(
    "call",
    [
        "ConvertStringSecurityDescriptorToSecurityDescriptorW", "GetSecurityDescriptorOwner",
        "GetSecurityDescriptorDacl",
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_protected_is_an_error(tmp_path: Path, call: str) -> None:
    simulator = WindowsSimulator("", {})
    simulator.failing[call] = [win32.ERROR_ACCESS_DENIED]
    with pytest.raises(WindowsFailure, match=f"{call} failed with Windows error 5"):
        protect(simulator.api(), tmp_path)
    assert simulator._memory == {}


def test_the_one_call_that_returns_its_error_is_heard_as_well(tmp_path: Path) -> None:
    simulator = WindowsSimulator("", {}, refusing_access=win32.ERROR_ACCESS_DENIED)
    with pytest.raises(WindowsFailure, match="SetNamedSecurityInfoW failed with Windows error 5"):
        protect(simulator.api(), tmp_path)
