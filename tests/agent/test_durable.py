"""State files survive power cuts and garbage (promise 1, NFR-REL-003)."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import agent_killed_save

from agent import durable
from agent.codes import Code
from agent.durable import Source
from agent.errors import LocalFailure

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PAYLOADS = st.dictionaries(st.text().filter(lambda key: key not in {"format", "checksum"}), JSON, max_size=4)
FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(payload=PAYLOADS)
@FILES
def test_what_was_saved_is_what_is_loaded(tmp_path: Path, payload: dict[str, Any]) -> None:
    path = tmp_path / "state.json"
    durable.save(path, payload)
    assert durable.load(path) == durable.Loaded(payload, None, Source.CURRENT)


@given(data=st.binary(max_size=300), previous=st.none() | st.binary(max_size=300))
@FILES
def test_arbitrary_bytes_are_never_a_payload_and_never_raise(
    tmp_path: Path, data: bytes, previous: bytes | None
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(data)
    if previous is None:
        durable.previous_of(path).unlink(missing_ok=True)
    else:
        durable.previous_of(path).write_bytes(previous)
    loaded = durable.load(path)
    assert (loaded.payload, loaded.source) == (None, Source.NONE)
    assert str(path) in (loaded.damage or "")


@given(payload=PAYLOADS, position=st.integers(0), byte=st.integers(0, 255), cut=st.booleans())
@FILES
def test_one_changed_byte_or_a_cut_never_makes_another_payload(
    tmp_path: Path, payload: dict[str, Any], position: int, byte: int, cut: bool
) -> None:
    path = tmp_path / "state.json"
    durable.save(path, payload, keep_previous=False)
    data = bytearray(path.read_bytes())
    position %= len(data)
    if cut:
        del data[position:]
    else:
        data[position] = byte
    path.write_bytes(data)
    loaded = durable.load(path, fall_back=False)
    assert loaded.payload in (payload, None)
    assert (loaded.payload is None) == (loaded.damage is not None)


DAMAGES = {
    "empty": b"",
    "NUL bytes": bytes(4096),
    "garbage": os.urandom(100),
    "half a file": b'{"state": "ne',
    "no object": b"[1, 2]",
    "no checksum": b'{"state": "new", "format": 1}',
    "a wrong checksum": b'{"state": "new", "format": 1, "checksum": "sha256:00"}',
    "a number as checksum": b'{"state": "new", "format": 1, "checksum": 1}',
    "not a number": b'{"state": NaN, "format": 1, "checksum": "sha256:00"}',
    "another encoding": '{"state": "new"}'.encode("utf-16"),
    "nested too deeply": b"[" * 100_000,
    "a newer format": b'{"state": "new", "format": 99, "checksum": "sha256:00"}',
    "too much": b" " * (durable.MAX_BYTES + 1),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_the_previous_copy_is_used_instead_of(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state.json"
    durable.save(path, {"state": "old"})
    durable.save(path, {"state": "new"})
    path.write_bytes(DAMAGES[what])
    loaded = durable.load(path)
    assert (loaded.payload, loaded.source) == ({"state": "old"}, Source.PREVIOUS)
    assert "previous copy is used" in (loaded.damage or "")
    assert durable.load(path, fall_back=False).payload is None


def test_a_newer_format_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(DAMAGES["a newer format"])
    assert "newer version (format 99" in (durable.load(tmp_path / "state.json").damage or "")


def test_a_link_a_folder_and_a_fifo_are_damage_and_are_not_followed(tmp_path: Path) -> None:
    durable.save(tmp_path / "real.json", {"state": "real"})
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "fifo.json")
    for name in ("link.json", "folder.json", "fifo.json"):
        loaded = durable.load(tmp_path / name)
        assert loaded.payload is None
        assert loaded.damage


def test_a_file_that_never_was_is_no_damage_but_a_lost_one_is(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert durable.load(path) == durable.Loaded(None, None, Source.NONE)
    durable.save(path, {"n": 1})
    durable.save(path, {"n": 2})
    path.unlink()
    loaded = durable.load(path)
    assert (loaded.payload, loaded.source) == ({"n": 1}, Source.PREVIOUS)
    assert "is missing" in (loaded.damage or "")


def test_a_damaged_file_never_pushes_out_a_good_previous_copy(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    durable.save(path, {"n": 1})
    durable.save(path, {"n": 2})
    path.write_bytes(bytes(100))
    durable.save(path, {"n": 3})
    path.write_bytes(b"")
    assert durable.load(path).payload == {"n": 1}


def test_removing_removes_the_previous_copy_as_well(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    durable.save(path, {"n": 1})
    durable.save(path, {"n": 2})
    durable.remove(path)
    durable.remove(path)
    assert list(tmp_path.iterdir()) == []


def test_a_state_file_is_plain_json_and_private(tmp_path: Path) -> None:
    """NFR-SEC-007; others' scripts read it with any JSON reader."""
    path = tmp_path / "state.json"
    durable.save(path, {"name": "ü", "list": (1, 2)})
    assert json.loads(path.read_text()) | {"checksum": ""} == {"name": "ü", "list": [1, 2], "format": 1, "checksum": ""}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_payload_with_reserved_keys_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        durable.save(tmp_path / "state.json", {"format": 2})


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalFailure) as caught:
        durable.save(tmp_path / "absent" / "state.json", {})
    assert caught.value.code is Code.IO
    assert "absent" in caught.value.message


def test_sweeping_removes_what_a_killed_writer_left_and_nothing_else(tmp_path: Path) -> None:
    durable.save(tmp_path / "state.json", {})
    (tmp_path / ".state.json.abc.tmp").write_bytes(b"half")
    durable.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_killed_at_any_step_of_a_save_the_old_or_the_new_file_is_found(tmp_path: Path) -> None:
    """Promise 1: a child is killed before each line and each file operation; then the whole is loaded."""
    done = subprocess.run(
        [sys.executable, agent_killed_save.__file__, tmp_path], check=True, capture_output=True, text=True, timeout=100
    )
    assert int(done.stdout) > 40


@pytest.mark.root
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """FR-UPD-008: DISK_FULL, and the state is what it was."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "none", tmp_path], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode()}")
    try:
        path = tmp_path / "state.json"
        durable.save(path, {"n": 1})
        with pytest.raises(LocalFailure) as caught:
            durable.save(path, {"n": "x" * 200_000})
        assert caught.value.code is Code.DISK_FULL
        assert durable.load(path).payload == {"n": 1}
        assert {item.name for item in tmp_path.iterdir()} <= {"state.json", "state.json.prev"}
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("place", [durable.previous_of, lambda path: path], ids=["previous", "current"])
def test_a_folder_in_the_place_of_a_state_file_is_moved_aside(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    path = tmp_path / "state.json"
    for version in (1, 2):
        durable.save(path, {"version": version})
    place(path).unlink()
    (place(path) / "inside").mkdir(parents=True)
    assert durable.load(path).payload is not None
    durable.save(path, {"version": 3})
    assert durable.load(path).payload == {"version": 3}
    place(path).unlink(missing_ok=True)
    place(path).mkdir(exist_ok=True)
    durable.remove(path)
    assert sorted(left.name for left in tmp_path.iterdir()) == [f"{place(path).name}.folder-{n}" for n in (1, 2)]
    assert (tmp_path / f"{place(path).name}.folder-1/inside").is_dir()
