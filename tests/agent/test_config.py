"""``updater.conf`` (FR-CFG-001, FR-CFG-002, FR-CFG-004)."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from agent.codes import Code
from agent.config import Config, load_config, write_config
from agent.errors import ConfigInvalid, LocalFailure
from agent.trust import load_root
from repo_server.core.model import Channel
from repo_server.core.package import ServiceKind

PIN = base64.b64encode(bytes(32)).decode()
EVERYTHING: dict[str, Any] = {
    "update_server_url": "https://updates.example.com/",
    "mirrors": ["https://mirror.example.com/tree"],
    "update_check_interval_seconds": 600,
    "component_manifest_path": "/srv/manifest.json",
    "log_file_path": "/var/log/updater.log",
    "log_max_size_mb": 2,
    "log_max_files": 3,
    "root_path": "/keys/root.json",
    "release_channel": "beta",
    "auth_secret": "s3cret",
    "device_id": "WIN-0B1C2D3E-4F50-4A6B-8C7D-9E0F1A2B3C4D",
    "org_id": "org",
    "site_id": "site",
    "attributes": {"ring": 1},
    "pinned_spki": [PIN],
    "service_manager": "process",
    "components": ["service", "ui"],
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "updater.conf"
    path.write_text(json.dumps(EVERYTHING))
    path.chmod(0o600)
    return path


def refused(path: Path, code: Code = Code.CONFIG_INVALID, **flags: Any) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load_config(path, {}, flags)
    assert caught.value.code is code
    return caught.value.message


def test_every_key_of_the_file_is_read(conf: Path) -> None:
    """FR-CFG-001, design §11."""
    assert load_config(conf, {}, {}) == Config(
        servers=("https://updates.example.com",),
        mirrors=("https://mirror.example.com/tree",),
        update_check_interval_seconds=600,
        component_manifest_path="/srv/manifest.json",
        log_file_path="/var/log/updater.log",
        log_max_size_mb=2,
        log_max_files=3,
        root_path="/keys/root.json",
        release_channel=Channel.BETA,
        auth_secret="s3cret",
        device_id="0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d",
        org_id="org",
        site_id="site",
        attributes={"ring": 1},
        pinned_spki=(PIN,),
        service_manager=ServiceKind.PROCESS,
        components=("service", "ui"),
    )


def test_the_defaults_are_those_of_the_specification(tmp_path: Path) -> None:
    """FR-CFG-001: an empty object is a whole configuration."""
    (tmp_path / "updater.conf").write_text("{}")
    (tmp_path / "updater.conf").chmod(0o600)
    config = load_config(tmp_path / "updater.conf", {}, {})
    assert config == Config()
    assert (config.servers, config.update_check_interval_seconds) == (("https://updates.commandit.com",), 14_400)
    assert config.release_channel is Channel.STABLE


def test_environment_overrides_the_file_and_flags_override_both(conf: Path) -> None:
    """FR-CFG-002."""
    environ = {
        "COMMANDIT_RELEASE_CHANNEL": "alpha",
        "COMMANDIT_LOG_MAX_FILES": "9",
        "COMMANDIT_MIRRORS": "https://a.example, https://b.example/t",
        "COMMANDIT_ATTRIBUTES": '{"ring": 2}',
        "COMMANDIT_INSECURE_HTTP": "true",
        "COMMANDIT_UPDATE_SERVER_URL": "http://inside.example",
        "COMMANDIT_ROOT_DIR": "not a key of the file",
    }
    config = load_config(conf, environ, {"log_max_files": 4, "org_id": None})
    assert config.release_channel is Channel.ALPHA
    assert config.log_max_files == 4
    assert config.mirrors == ("https://a.example", "https://b.example/t")
    assert config.attributes == {"ring": 2}
    assert config.servers == ("http://inside.example",)
    assert config.org_id == "org"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("update_check_interval_seconds", 1),
        ("update_check_interval_seconds", "600"),
        ("update_check_interval_seconds", True),
        ("log_max_size_mb", 0),
        ("log_max_files", -1),
        ("release_channel", "nightly"),
        ("device_id", "laptop"),
        ("device_id", "00000000-0000-0000-0000-000000000000"),
        ("mirrors", "https://not.a.list"),
        ("mirrors", ["ftp://x"]),
        ("mirrors", ["https://user:secret@x"]),
        ("mirrors", ["https://x/?q"]),
        ("mirrors", ["https://x:99999"]),
        ("update_server_url", ""),
        ("update_server_url", []),
        ("update_server_url", "updates.commandit.com"),
        ("update_server_url", "https://x/\n"),
        ("auth_secret", "line\nfeed"),
        ("auth_secret", "ends with one\n"),
        ("auth_secret", ""),
        ("pinned_spki", ["abc"]),
        ("service_manager", "cron"),
        ("components", ["Service"]),
        ("components", ["service\n"]),
        ("root_path", "relative/root.json"),
        ("attributes", []),
        ("attributes", {"n" * 65: 1}),
        ("attributes", {"": 1}),
        ("org_id", "o" * 129),
        ("site_id", ""),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_key(conf: Path, key: str, value: Any) -> None:
    conf.write_text(json.dumps({**EVERYTHING, key: value}))
    message = refused(conf)
    assert message.startswith(f"{key} in {conf}")
    assert not any(odd in message for odd in ("regex", "`", "\\Z")), message
    if key == "auth_secret" and value:
        assert value not in message


def test_where_a_wrong_value_came_from_is_said(conf: Path) -> None:
    with pytest.raises(ConfigInvalid, match="COMMANDIT_LOG_MAX_FILES"):
        load_config(conf, {"COMMANDIT_LOG_MAX_FILES": "many"}, {})
    with pytest.raises(ConfigInvalid, match="the variable COMMANDIT_LOG_MAX_FILES"):
        load_config(conf, {"COMMANDIT_LOG_MAX_FILES": "0"}, {})
    assert "the command line" in refused(conf, release_channel="nightly")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"\xef\xbb\xbf{}", b"[" * 100_000])
def test_a_file_that_is_not_a_json_object_is_refused(conf: Path, data: bytes) -> None:
    conf.write_bytes(data)
    assert str(conf) in refused(conf)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A FIFO in its place would hold the agent, and the lock, for good."""
    os.mkfifo(fifo := tmp_path / "updater.conf", 0o600)
    with pytest.raises(LocalFailure, match="not a regular file"):
        load_config(fifo, {}, {})
    with pytest.raises(LocalFailure, match="not a regular file"):
        load_root(fifo)


def test_a_missing_file_says_how_it_is_made(tmp_path: Path) -> None:
    assert "commandit-updater install" in refused(tmp_path / "updater.conf")


def test_plain_http_is_for_loopback_only(conf: Path) -> None:
    """NFR-SEC-001."""
    for url in ("http://127.0.0.1:8470", "http://[::1]:80", "http://localhost/x"):
        assert load_config(conf, {}, {"update_server_url": url}).servers == (url,)
    for url in ("http://updates.commandit.com", "http://127.0.0.1.example.com", "http://localhost.example"):
        assert "not encrypted" in refused(conf, update_server_url=url)


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666, 0o622])
def test_a_file_that_others_can_write_is_refused_with_the_command_that_mends_it(conf: Path, mode: int) -> None:
    """FR-CFG-004; the exit code is 3."""
    conf.write_text("{}")
    conf.chmod(mode)
    assert f"chmod 600 {conf}" in refused(conf, Code.CONFIG_UNSAFE)
    assert Code.CONFIG_UNSAFE.exit_code == 3


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_can_read_is_refused(conf: Path, mode: int) -> None:
    """FR-CFG-004, NFR-SRV-010."""
    conf.chmod(mode)
    message = refused(conf, Code.CONFIG_UNSAFE)
    assert "holds a secret" in message
    assert "s3cret" not in message
    conf.write_text("{}")
    assert load_config(conf, {}, {}) == Config()


def test_a_folder_in_which_others_can_replace_the_file_is_refused(conf: Path) -> None:
    """FR-CFG-004; but not a sticky one, in which they cannot."""
    conf.parent.chmod(0o777)
    assert f"chmod 755 {conf.parent}" in refused(conf, Code.CONFIG_UNSAFE)
    conf.parent.chmod(0o1777)
    load_config(conf, {}, {})


@pytest.mark.root
def test_a_file_of_another_user_is_refused(conf: Path) -> None:
    """FR-CFG-004."""
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user needs root")
    os.chown(conf, 12345, 12345)
    assert f"chown root {conf}" in refused(conf, Code.CONFIG_UNSAFE)


def test_rewriting_keeps_every_other_key_also_unknown_ones(conf: Path) -> None:
    conf.write_text(json.dumps({**EVERYTHING, "from_the_future": {"a": 1}}))
    config = write_config(conf, {"release_channel": "alpha", "site_id": None})
    written = json.loads(conf.read_text())
    assert (config.release_channel, config.site_id) == (Channel.ALPHA, None)
    expected = {**EVERYTHING, "from_the_future": {"a": 1}, "release_channel": "alpha"}
    del expected["site_id"]
    assert written == expected
    assert next(iter(written)) == "update_server_url"


def test_a_new_file_is_private_and_a_wrong_change_writes_nothing(tmp_path: Path) -> None:
    """FR-BST-003."""
    path = tmp_path / "updater.conf"
    with pytest.raises(ConfigInvalid):
        write_config(path, {"release_channel": "nightly"})
    assert not path.exists()
    write_config(path, {"auth_secret": "x"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_secret_is_never_shown(conf: Path) -> None:
    assert "s3cret" not in repr(load_config(conf, {}, {}))
