"""Manifest, status, floor file and folders (FR-CFG-003, FR-STA-001, NFR-SEC-007)."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from support.agent_archives import PACKAGE_TOML, RELEASE

from agent import durable
from agent.codes import Code
from agent.errors import ConfigInvalid
from agent.floor import load_floors, raise_floor
from agent.manifest import InstalledComponent, Manifest, load_manifest, save_manifest
from agent.paths import Paths
from agent.status import ComponentVersion, OperationStatus, Quarantined, Status, load_status, save_status
from repo_server.core.version import Version

NOW = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)
SERVICE = InstalledComponent(
    "service", Version("1.2.3"), "/opt/commandit/service", "a" * 64, PACKAGE_TOML.decode(), NOW
)
KEYS = [
    "last_check_time", "last_update_attempt_time", "last_update_success_time", "installed_components",
    "assigned_channel", "last_operation_status", "last_error_code", "last_error_message", "next_check_time",
    "metadata_expires", "quarantined",
]  # fmt: skip


def test_the_manifest_is_kept_with_what_each_component_needs_to_be_stopped(tmp_path: Path) -> None:
    """FR-CFG-003."""
    path = tmp_path / "manifest.json"
    assert load_manifest(path).manifest == Manifest()
    manifest = Manifest().having(SERVICE)
    save_manifest(path, manifest)
    loaded = load_manifest(path)
    assert loaded.damage is None
    assert loaded.manifest == manifest
    assert loaded.manifest.components["service"].package.id == RELEASE
    assert loaded.manifest.version_of("service") == Version("1.2.3")
    assert loaded.manifest.version_of("ui") is None
    assert loaded.manifest.without("service", "ui") == Manifest()


def test_what_an_earlier_agent_installed_is_known_also_if_this_one_would_refuse_it(tmp_path: Path) -> None:
    """L43: else one package of old would make a whole endpoint unknown, and all of it would be installed again."""
    path, old = tmp_path / "manifest.json", b'[service]\nkind = "process"\ncommand = ["/usr/bin/serve"]\n'
    before = dataclasses.replace(SERVICE, package_toml=(PACKAGE_TOML + old).decode())
    save_manifest(path, Manifest().having(before))
    assert load_manifest(path).manifest.components["service"].package.service.command == ("/usr/bin/serve",)


@pytest.mark.parametrize(
    "change",
    [{"version": "one"}, {"package_toml": "x"}, {"installed_at": 7}, {"name": "ui"}, {"name": None}],
    ids=str,
)
def test_a_manifest_of_another_form_is_said_to_be_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "manifest.json"
    save_manifest(path, Manifest().having(SERVICE))
    entry = json.loads(path.read_text())["components"][0]
    changed = {key: value for key, value in {**entry, **change}.items() if value is not None}
    durable.save(path, {"components": [changed]})
    loaded = load_manifest(path)
    assert loaded.manifest == Manifest()
    assert "form that is not known" in (loaded.damage or "")


def test_status_json_has_exactly_the_keys_that_scripts_rely_on(tmp_path: Path) -> None:
    """FR-STA-001, design §11: in the file two more, ``format`` and ``checksum``."""
    path = tmp_path / "status.json"
    status = Status(
        last_check_time=NOW.astimezone(timezone(timedelta(hours=2))),
        installed_components=(ComponentVersion("service", "1.2.3"),),
        assigned_channel="beta",
        last_operation_status=OperationStatus.ROLLED_BACK,
        last_error_code=Code.HEALTH_FAILED,
        last_error_message="it did not answer",
        quarantined=(Quarantined("service", "1.2.4", 3, Code.HEALTH_FAILED),),
    )
    save_status(path, status)
    raw = json.loads(path.read_text())
    assert list(raw) == [*KEYS, "format", "checksum"]
    assert list(status.to_json()) == KEYS
    assert raw["last_check_time"] == "2026-11-21T17:00:00Z"
    assert raw["last_error_code"] == 82
    assert raw["last_operation_status"] == "rolled_back"
    assert raw["quarantined"] == [{"name": "service", "version": "1.2.4", "attempts": 3, "error_code": 82}]
    assert load_status(path).status == dataclasses.replace(status, last_check_time=NOW)


def test_a_status_of_another_form_is_said_to_be_damaged(tmp_path: Path) -> None:
    durable.save(tmp_path / "status.json", {"last_error_code": 12345})
    loaded = load_status(tmp_path / "status.json")
    assert loaded.status == Status()
    assert loaded.damage


def test_a_floor_is_raised_and_never_lowered(tmp_path: Path) -> None:
    """Design §4: what is too old stays too old."""
    path = tmp_path / "floor.json"
    assert load_floors(path).known
    for version, floor in (("1.2.0", "1.2.0"), ("1.1.9", "1.2.0"), ("1.2.0-rc.1", "1.2.0"), ("1.10.0", "1.10.0")):
        assert raise_floor(path, "service", Version(version)).of("service") == Version(floor)
        assert load_floors(path).of("service") == Version(floor)
    raise_floor(path, "ui", Version("2.0.0"))
    assert load_floors(path).lowest == {"service": Version("1.10.0"), "ui": Version("2.0.0")}


def test_a_damaged_floor_file_is_its_previous_copy_or_known_to_be_unknown(tmp_path: Path) -> None:
    path = tmp_path / "floor.json"
    raise_floor(path, "service", Version("1.0.0"))
    raise_floor(path, "service", Version("2.0.0"))
    path.write_bytes(b"")
    assert load_floors(path).of("service") == Version("1.0.0")
    assert load_floors(path).damage
    durable.previous_of(path).write_bytes(b"")
    floors = load_floors(path)
    assert not floors.known
    assert floors.damage
    durable.save(path, {"lowest": {"service": "one"}})
    assert not load_floors(path).known


def test_fields_of_a_later_version_stay_in_the_floor_file(tmp_path: Path) -> None:
    path = tmp_path / "floor.json"
    durable.save(path, {"lowest": {}, "metadata": {"timestamp": 7}})
    raise_floor(path, "service", Version("1.0.0"))
    assert json.loads(path.read_text())["metadata"] == {"timestamp": 7}


def test_every_path_lies_below_the_root_folder_also_when_the_configuration_moves_it(tmp_path: Path) -> None:
    """Design §11: a whole endpoint in one folder."""
    paths = Paths(tmp_path).configured("/srv/manifest.json", "/var/log/updater.log", "/keys/root.json")
    assert paths.manifest == tmp_path / "srv/manifest.json"
    assert paths.log == tmp_path / "var/log/updater.log"
    assert paths.root_json == tmp_path / "keys/root.json"
    assert Paths(tmp_path).config == tmp_path / "etc/commandit/updater.conf"
    assert Paths(tmp_path).install("ui") == tmp_path / "opt/commandit/ui"
    assert Paths().state == Path("/var/lib/commandit")


def test_state_folders_are_private_whatever_the_umask_and_tightened_when_they_are_not(tmp_path: Path) -> None:
    """NFR-SEC-007."""
    paths = Paths(tmp_path)
    paths.state.mkdir(parents=True)
    paths.state.chmod(0o777)
    before = os.umask(0)
    try:
        paths.create()
        paths.create()
    finally:
        os.umask(before)
    for folder in (paths.config_folder, paths.state, paths.staging, paths.downloads, paths.spool, paths.run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(paths.install_root.stat().st_mode) == 0o755


@pytest.mark.root
def test_a_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a folder to another user needs root")
    paths = Paths(tmp_path)
    paths.state.mkdir(parents=True)
    os.chown(paths.state, 12345, 12345)
    with pytest.raises(ConfigInvalid, match="chown root") as caught:
        paths.create()
    assert caught.value.code is Code.CONFIG_UNSAFE
