"""The contract of ``FILES`` and ``ACCESS``, on every system's adapter, and what is each one's own (promise 1)."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from simulators.windows import WindowsSimulator
from simulators.windows_rights import OPEN

from agent import durable, keep, landing, lock, logs
from agent.codes import Code
from agent.errors import AgentError
from agent.platform import win32
from agent.platform.macos_files import MacFiles
from agent.platform.patience import Patience
from agent.platform.posix_access import PosixAccess
from agent.platform.posix_files import PosixFiles
from agent.platform.sddl import parse_sddl
from agent.platform.windows_access import PRIVATE, PUBLIC, WindowsAccess
from agent.platform.windows_files import WindowsFiles

USERS = [durable, keep, landing, lock, logs]
"""The modules that go through ``FILES``."""


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[WindowsSimulator]:
    simulator = WindowsSimulator(str(tmp_path), {})
    yield simulator
    assert simulator.open_handles == {}
    assert simulator._memory == {}


def quick() -> Patience:
    clock = SimpleNamespace(now=0.0)
    return Patience(lambda: float(clock.now), lambda seconds: setattr(clock, "now", clock.now + seconds))


MAKERS: dict[str, Callable[[WindowsSimulator], Any]] = {
    "posix": lambda _: PosixFiles(),
    "macos": lambda _: MacFiles(os.fsync),
    "windows": lambda simulator: WindowsFiles(simulator.api(), quick()),
}


@pytest.fixture(params=sorted(MAKERS))
def files(request: pytest.FixtureRequest, simulator: WindowsSimulator, monkeypatch: pytest.MonkeyPatch) -> Any:
    files = MAKERS[request.param](simulator)
    for module in USERS:
        monkeypatch.setattr(module, "FILES", files)
    return files


def test_a_state_file_is_saved_replaced_and_loaded(files: Any, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for number in (1, 2):
        durable.save(path, {"number": number})
    assert durable.load(path).payload == {"number": 2}
    assert durable.load(durable.previous_of(path)).payload == {"number": 1}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["state.json", "state.json.prev"]


def test_a_link_in_a_files_place_is_damage_and_not_gone_through(files: Any, tmp_path: Path) -> None:
    durable.save(tmp_path / "other.json", {"number": 1})
    (tmp_path / "state.json").symlink_to("other.json")
    loaded = durable.load(tmp_path / "state.json", fall_back=False)
    assert loaded.payload is None
    with pytest.raises(OSError, match=rf"^\[Errno {errno.ELOOP}\]"):
        files.open(tmp_path / "state.json", os.O_RDWR | os.O_CREAT)


def test_what_is_not_there_is_not_found_and_what_is_there_is_not_made_anew(files: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.open(tmp_path / "none", os.O_RDONLY)
    os.close(files.open(tmp_path / "one", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    with pytest.raises(FileExistsError):
        files.open(tmp_path / "one", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_bytes_go_where_they_are_told_and_a_file_can_be_emptied(files: Any, tmp_path: Path) -> None:
    descriptor = files.open(tmp_path / "part", os.O_RDWR | os.O_CREAT)
    assert files.write_at(descriptor, b"world", 5) == 5
    assert files.write_at(descriptor, b"hello", 0) == 5
    assert files.read_at(descriptor, 4, 3) == b"lowo"
    files.sync(descriptor)
    os.close(descriptor)
    os.close(files.open(tmp_path / "part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    assert (tmp_path / "part").read_bytes() == b""
    files.sync_file(tmp_path / "part")
    files.sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.sync_folder(tmp_path / "none")


def test_one_agent_at_a_time_and_the_next_one_knows_who(files: Any, tmp_path: Path) -> None:
    with lock.only_one(tmp_path / "lock"):
        with (
            pytest.raises(AgentError, match=f"process {os.getpid()} is at work") as caught,
            lock.only_one(tmp_path / "lock"),
        ):
            pass
        assert caught.value.code is Code.BUSY
    with lock.only_one(tmp_path / "lock"):
        pass


def test_what_is_no_file_is_no_lock(files: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with (
        pytest.raises(AgentError, match=r"lock: it is not a regular file; remove it"),
        lock.only_one(tmp_path / "lock"),
    ):
        pass


def test_a_lock_that_is_waited_for_comes(files: Any, tmp_path: Path) -> None:
    first = files.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    files.lock(first, wait=False)
    second = files.open(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        files.lock(second, wait=False)
    threading.Timer(0.1, os.close, [first]).start()
    files.lock(second, wait=True)
    os.close(second)


def test_a_log_grows_is_rotated_and_loses_nothing_while_it_is_open(files: Any, tmp_path: Path) -> None:
    log = logs.Log(tmp_path / "updater.log", lambda: datetime.now(UTC), max_bytes=300, max_files=3)
    held = files.open(tmp_path / "updater.log", os.O_RDWR | os.O_APPEND | os.O_CREAT)
    for number in range(6):
        log.info("event", number=number)
    os.close(held)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["updater.log", "updater.log.1", "updater.log.2"]
    text = "".join((tmp_path / name).read_text() for name in reversed(names))
    lines = [json.loads(line)["number"] for line in text.splitlines()]
    assert len(lines) >= 3
    assert lines == list(range(6))[-len(lines) :]


def test_a_new_folder_is_filled_through_no_link(files: Any, tmp_path: Path) -> None:
    with landing.landing(tmp_path / "new") as target:
        target.folder(("empty",))
        target.file(("bin", "serve"), [b"one ", b"two"], 0o755)
        target.sync()
        (tmp_path / "new" / "link").symlink_to(tmp_path)
        target._folders.add(("link",))
        with pytest.raises(AgentError):
            target.file(("link", "x"), [b""], 0o644)
        with pytest.raises(AgentError):
            target.file(("bin", "serve", "x"), [b""], 0o644)
        with pytest.raises(AgentError, match="create"):
            target.file(("bin", "serve"), [b""], 0o644)
    assert (tmp_path / "new" / "bin" / "serve").read_bytes() == b"one two"
    assert not (tmp_path / "x").exists()


def test_preserved_files_are_carried_with_their_rights(files: Any, tmp_path: Path, simulator: WindowsSimulator) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "data").mkdir(parents=True)
    (old / "data" / "key").write_text("secret")
    (old / "data" / "key").chmod(0o600)
    new.mkdir()
    simulator.security[str(old / "data" / "key")] = (PRIVATE, 0)
    assert set(keep.carry(old, new, ["data/**"])) == {"data", "data/key"}
    assert (new / "data" / "key").read_text() == "secret"
    assert stat.S_IMODE((new / "data" / "key").stat().st_mode) == 0o600
    if not files.has_modes:
        assert simulator.security[str(new / "data" / "key")] == (PRIVATE, 0x8000_0005)
        assert simulator.security[str(new / "data")][1] == 0x2000_0005, "what is inherited stays so"


@pytest.fixture
def _read_only_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows removes no file that is marked read-only."""
    unlink = os.unlink

    def refusing(path: Any, *arguments: Any, **named: Any) -> None:
        if os.path.lexists(path) and not stat.S_IMODE(os.lstat(path).st_mode) & stat.S_IWRITE:
            raise PermissionError(errno.EACCES, "read-only", str(path))
        unlink(path, *arguments, **named)

    monkeypatch.setattr(os, "unlink", refusing)
    monkeypatch.setattr("shutil._use_fd_functions", False)


@pytest.mark.usefixtures("_read_only_is_kept")
def test_on_windows_files_that_are_marked_read_only_are_carried_and_removed(
    tmp_path: Path, simulator: WindowsSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = WindowsFiles(simulator.api())
    monkeypatch.setattr(keep, "FILES", files)
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    (old / "key").write_text("first")
    (old / "key").chmod(0o444)
    before = keep.carry(old, new, ["key"])
    assert stat.S_IMODE((new / "key").stat().st_mode) == 0o444
    (old / "key").chmod(0o644)
    (old / "key").write_text("second one")
    (old / "key").chmod(0o444)
    keep.carry(old, new, ["key"], before)
    assert (new / "key").read_text() == "second one"
    files.remove_tree(old)
    assert not old.exists()
    (new / "key").rename(new / "other")
    files.remove(new / "other")
    files.remove(new / "other")
    assert list(new.iterdir()) == []


def test_on_windows_a_log_that_somebody_holds_grows_and_keeps_nobody_waiting(
    tmp_path: Path, simulator: WindowsSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FILES", WindowsFiles(simulator.api()))
    simulator.failing["MoveFileExW"] = [win32.ERROR_SHARING_VIOLATION] * 10_000
    log = logs.Log(tmp_path / "updater.log", lambda: datetime.now(UTC), max_bytes=300, max_files=2)
    for number in range(6):
        log.info("event", number=number)
    assert len((tmp_path / "updater.log").read_text().splitlines()) == 6
    simulator.failing.clear()
    log.info("event", number=6)
    assert (tmp_path / "updater.log.1").exists()


def test_on_windows_a_junction_is_a_link_and_nothing_is_carried_through_it(
    tmp_path: Path, simulator: WindowsSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component with few rights could else have us copy what only we can read."""
    files = WindowsFiles(simulator.api())
    junction = SimpleNamespace(st_mode=stat.S_IFDIR | 0o777, st_file_attributes=0x410)
    assert files.is_link(junction)  # type: ignore[arg-type]
    entry = SimpleNamespace(is_dir=lambda follow_symlinks: True, stat=lambda follow_symlinks: junction)  # noqa: ARG005
    assert not files.is_folder(entry)  # type: ignore[arg-type]
    plain = SimpleNamespace(st_mode=stat.S_IFDIR | 0o777, st_file_attributes=0x10)
    assert not files.is_link(plain)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", sorted(win32.HELD))
def test_on_windows_a_state_file_that_somebody_reads_is_waited_for(
    tmp_path: Path, simulator: WindowsSimulator, number: int
) -> None:
    simulator.failing["MoveFileExW"] = [number] * 3
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    WindowsFiles(simulator.api(), quick()).replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"
    simulator.failing["MoveFileExW"] = [number] * 10_000
    with pytest.raises(PermissionError, match="held by another program"):
        WindowsFiles(simulator.api(), quick()).replace(tmp_path / "old", tmp_path / "new")


@pytest.mark.parametrize("refused", [errno.ENOTSUP, errno.EINVAL, errno.ENOTTY])
def test_on_macos_the_drives_cache_is_flushed_where_the_file_system_can(tmp_path: Path, refused: int) -> None:
    flushed: list[str] = []

    def flush(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        if refusing:
            raise OSError(refused, os.strerror(refused))

    refusing = False
    files = MacFiles(flush)
    (tmp_path / "file").write_text("x")
    files.sync_file(tmp_path / "file")
    files.sync_folder(tmp_path)
    assert flushed == [str(tmp_path / "file"), str(tmp_path)]
    refusing = True
    files.sync_file(tmp_path / "file")
    refused = errno.EIO
    with pytest.raises(OSError, match="error"):
        files.sync_file(tmp_path / "file")


ACCESSES: dict[str, Callable[[WindowsSimulator], Any]] = {
    "posix": lambda _: PosixAccess(),
    "windows": lambda simulator: WindowsAccess(simulator.api()),
}


@pytest.fixture(params=sorted(ACCESSES))
def access(request: pytest.FixtureRequest, simulator: WindowsSimulator) -> Any:
    return ACCESSES[request.param](simulator)


def test_a_folder_is_made_so_that_it_can_be_trusted_and_again_changes_nothing(access: Any, tmp_path: Path) -> None:
    for private in (True, False):
        folder = tmp_path / "a" / f"private-{private}"
        assert access.make_folder(folder, private=private) is None
        assert access.make_folder(folder, private=private) is None
        assert access.flaw(folder, secret=private) is None
    assert access.may_act(tmp_path, whole_machine=False)
    assert "only" in access.who_may()


def test_what_others_can_write_or_read_is_a_flaw_with_its_cure(
    access: Any, tmp_path: Path, simulator: WindowsSimulator
) -> None:
    conf = tmp_path / "updater.conf"
    conf.write_text("{}")
    for mode, rights, secret, flawed in (
        (0o666, OPEN.replace("DCLCRPCR", "FA"), False, "written by others"),
        (0o644, PUBLIC, True, "read by others"),
        (0o644, PUBLIC, False, None),
        (0o600, PRIVATE, True, None),
    ):
        conf.chmod(mode)
        simulator.security[str(conf)] = (rights, 0)
        flaw = access.flaw(conf, secret=secret)
        assert (flaw is None) == (flawed is None)
        assert flaw is None or (flawed in flaw.found and str(conf) in flaw.command)


def test_on_windows_a_folder_that_somebody_else_made_before_us_is_refused(
    tmp_path: Path, simulator: WindowsSimulator
) -> None:
    """Anybody may make folders in ProgramData."""
    access = WindowsAccess(simulator.api())
    (tmp_path / "commandit").mkdir()
    simulator.security[str(tmp_path / "commandit")] = (OPEN.replace("O:BA", "O:S-1-5-21-1-2-3-1001"), 0)
    flaw = access.make_folder(tmp_path / "commandit", private=True)
    assert flaw is not None
    assert "S-1-5-21-1-2-3-1001" in flaw.found
    assert "icacls" in flaw.command
    assert access.flaw(tmp_path / "commandit", secret=False) is not None


def test_on_windows_a_folder_that_others_may_fill_is_tightened_once(
    tmp_path: Path, simulator: WindowsSimulator
) -> None:
    access = WindowsAccess(simulator.api())
    access.make_folder(tmp_path / "state", private=True)
    assert simulator.security[str(tmp_path / "state")][0] == PRIVATE
    simulator.security[str(tmp_path / "state")] = (OPEN, 0)
    access.make_folder(tmp_path / "state", private=True)
    assert simulator.security[str(tmp_path / "state")][0] == PRIVATE
    before = simulator.calls.count("SetNamedSecurityInfoW")
    access.make_folder(tmp_path / "state", private=True)
    assert simulator.calls.count("SetNamedSecurityInfoW") == before
    simulator.administrator = False
    assert not access.may_act(tmp_path, whole_machine=True)


@pytest.mark.parametrize(
    ("text", "owner", "protected", "reading", "writing"),
    [
        ("O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)", "BA", True, (), ()),
        ("O:SYD:AI(A;ID;FA;;;SY)(A;ID;0x1200a9;;;BU)", "SY", False, ("BU",), ()),
        ("O:BAD:PAI(A;;FRFX;;;AU)(A;;GW;;;WD)", "BA", True, ("AU",), ("WD",)),
        ("O:BAD:(A;OICIIO;GA;;;WD)(D;;FA;;;WD)", "BA", False, (), ()),
        ("O:BAD:(A;;CCDC;;;S-1-5-21-1-2-3-4)", "BA", False, ("S-1-5-21-1-2-3-4",), ("S-1-5-21-1-2-3-4",)),
        ("O:BAD:(A;;WDWO;;;IU)(A;;SD;;;BG)(A;;DT;;;AN)", "BA", False, (), ("IU", "BG", "AN")),
        ("O:BAD:(XA;;FA;;;WD;(Member_of {SID(BA)}))", "BA", False, ("WD",), ("WD",)),
        ("O:BAD:(A;;??;;;WD)", "BA", False, ("WD",), ("WD",)),
        ("O:BAD:(A;;FR;;;SY", "BA", False, ("everybody",), ("everybody",)),
        ("O:BAD:(A;;FR)", "BA", False, ("everybody",), ("everybody",)),
        ("O:BAD:NO_ACCESS_CONTROL", "BA", False, ("everybody",), ("everybody",)),
        ("O:S-1-5-32-544", "S-1-5-32-544", False, ("everybody",), ("everybody",)),
        ("", "", False, ("everybody",), ("everybody",)),
    ],
)  # fmt: skip
def test_a_security_descriptor_says_who_else_may_do_what(
    text: str, owner: str, protected: bool, reading: tuple[str, ...], writing: tuple[str, ...]
) -> None:
    found = parse_sddl(text)
    assert (found.owner, found.protected, found.others_read, found.others_write) == (owner, protected, reading, writing)
    assert found.owner_is_trusted == (owner in {"BA", "SY", "S-1-5-32-544"})
