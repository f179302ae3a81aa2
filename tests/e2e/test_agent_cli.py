"""The agent's command line: exit codes, first installation, configuration, status (design §11, FR-BST, FR-CFG)."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from simulators.repository import Failing, Repository
from support.agent_http import scripted_server
from support.agent_tls import make_tls
from support.components import Package
from support.endpoints import Endpoint
from support.programs import run

from agent.durable import save
from agent.status import load_status, save_status

STATUS_KEYS = [
    "last_check_time", "last_update_attempt_time", "last_update_success_time", "installed_components",
    "assigned_channel", "last_operation_status", "last_error_code", "last_error_message", "next_check_time",
    "metadata_expires", "quarantined",
]  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "downloads") as repository:
        package = Package("service", "1.0.0")
        repository.publish(package.name, package.build())
        yield repository


def test_an_installation_leaves_private_files_and_says_what_it_did(
    repository: Repository, endpoint: Endpoint, tmp_path: Path
) -> None:
    """FR-BST-002, FR-BST-003, NFR-SRV-010."""
    (tmp_path / "secret").write_text("s3cret\n")
    endpoint.install(
        repository, "service", "probe", more=["--secret-file", str(tmp_path / "secret"), "--site-id", "lab"]
    )
    config = json.loads(endpoint.paths.config.read_text())
    assert (config["auth_secret"], config["site_id"], config["service_manager"]) == ("s3cret", "lab", "process")
    for path in (endpoint.paths.config, endpoint.paths.root_json, endpoint.paths.manifest, endpoint.paths.status):
        assert path.stat().st_mode & 0o777 == 0o600, path
    for folder in (endpoint.paths.config_folder, endpoint.paths.state):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert set(repository.secrets) == {"s3cret"}
    assert repository.checks[-1].site_id == "lab"
    assert {one.name: one.version for one in repository.checks[0].components} == {"service": "", "probe": ""}
    assert repository.final("service")[0].trigger_source == "install"


def test_what_is_wanted_and_not_offered_is_said(repository: Repository, endpoint: Endpoint) -> None:
    """Promise 3."""
    endpoint.install(repository, "service", "probe")
    assert "probe" in endpoint.run("checknow").stdout
    assert "no_release_for_platform" in endpoint.run("checknow").stdout


def test_nothing_installed_is_not_merely_up_to_date(repository: Repository, endpoint: Endpoint) -> None:
    """Promise 3; times are for people."""
    endpoint.install(repository, "probe")
    assert "Up to date" not in endpoint.once().stdout
    said = endpoint.run("status").stdout
    assert "no_release_for_platform" in said
    assert "Last: nothing to install, checked " in said
    assert [line.partition(":")[0] for line in said.splitlines()] == ["Installed", "Last", "Next"]
    assert re.search(r"check at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", said)
    assert "no_release_for_platform" in json.loads(endpoint.run("status", "--json").stdout)["last_error_message"]


def test_installing_again_keeps_the_device_and_changes_what_is_given(
    repository: Repository, endpoint: Endpoint
) -> None:
    endpoint.install(repository, "service")
    before = json.loads(endpoint.paths.config.read_text())
    program = endpoint.processes()
    endpoint.run("install", "--channel", "beta")
    after = json.loads(endpoint.paths.config.read_text())
    assert after == before | {"release_channel": "beta"}
    assert endpoint.processes() == program
    assert repository.checks[-1].device_id == repository.checks[0].device_id
    assert repository.checks[-1].release_channel == "beta"


def test_a_given_device_id_is_normalised(repository: Repository, endpoint: Endpoint) -> None:
    """L53."""
    endpoint.install(repository, "service", more=["--device-id", "WIN-0B1C2D3E-4F50-4A6B-8C7D-9E0F1A2B3C4D"])
    assert repository.checks[0].device_id == "0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d"


def test_installing_without_a_root_of_trust_is_an_error_that_says_how(
    repository: Repository, endpoint: Endpoint
) -> None:
    said = endpoint.run("install", "--server", repository.url, expect=1).stderr
    assert "--root root.json" in said
    assert not endpoint.paths.config.exists()


def test_a_root_that_nobody_signed_is_refused(repository: Repository, endpoint: Endpoint, tmp_path: Path) -> None:
    root = json.loads(repository.root_json.read_text())
    root["signatures"][0]["sig"] = "00" * 64
    (tmp_path / "forged.json").write_text(json.dumps(root))
    said = endpoint.run("install", "--server", repository.url, "--root", tmp_path / "forged.json", expect=1).stderr
    assert "ROOT_INVALID" in said
    assert not endpoint.paths.root_json.exists()


def test_a_server_that_is_away_at_installation_leaves_a_configured_agent(
    repository: Repository, endpoint: Endpoint
) -> None:
    repository.failing["/v1/check"] = Failing(status=503, headers={"Retry-After": "120"})
    endpoint.install(repository, "service", expect=1)
    assert endpoint.status()["last_error_code"] == 23
    assert endpoint.status()["next_check_time"] is not None
    said = endpoint.run("status").stdout
    assert [line.partition(":")[0] for line in said.splitlines()] == ["Installed", "Last", "Next"]
    assert "HTTP_STATUS" in said
    del repository.failing["/v1/check"]
    endpoint.once()
    assert endpoint.installed() == {"service": "1.0.0"}


@pytest.mark.parametrize("path", ["/v1/check", "/v1/packages"])
def test_a_server_that_asks_for_time_gets_it(repository: Repository, endpoint: Endpoint, path: str) -> None:
    """NFR-REL-001: also one whose downloads are overloaded."""
    repository.failing[path] = Failing(status=429, headers={"Retry-After": "7200"})
    endpoint.install(repository, "service", expect=1)
    following = datetime.fromisoformat(endpoint.status()["next_check_time"])
    assert 7000 < (following - datetime.now(UTC)).total_seconds() <= 7200
    assert endpoint.status()["last_error_code"] == 24
    assert repository.calls[path] == 1
    endpoint.run("once", "--if-due")
    assert repository.calls[path] == 1


def test_a_next_check_that_a_wrong_clock_put_years_ahead_is_due(repository: Repository, endpoint: Endpoint) -> None:
    endpoint.install(repository, "service")
    before = load_status(endpoint.paths.status).status
    for years, checks in ((0.002, 1), (10, 2)):
        save_status(
            endpoint.paths.status, replace(before, next_check_time=datetime.now(UTC) + timedelta(days=365 * years))
        )
        endpoint.run("once", "--if-due")
        assert repository.calls["/v1/check"] == checks


def test_plain_http_needs_a_word_for_it(repository: Repository, endpoint: Endpoint) -> None:
    """NFR-SEC-001: 192.0.2.1 is nobody; what matters is which error comes."""
    endpoint.install(repository, "service")
    said = endpoint.run("once", "--server", "http://192.0.2.1", expect=1).stderr
    assert "CONFIG_INVALID" in said
    assert "not encrypted" in said
    endpoint.run("install", "--insecure-http", "--server", repository.url)
    config = json.loads(endpoint.paths.config.read_text())
    assert config["insecure_http"] is True


def test_the_servers_key_can_be_pinned_beside_the_systems_trust(
    repository: Repository, endpoint: Endpoint, tmp_path: Path
) -> None:
    """NFR-SEC-001, NFR-SEC-005."""
    endpoint.install(repository, "service")
    tls = make_tls(tmp_path)
    nothing = (
        b'{"updates": [], "channel": "stable", "channel_source": "default", "reasons": [], "next_check_seconds": 60, '
        b'"catalogue": 1}'
    )
    with scripted_server(lambda _, reply: reply.json(nothing), tls.server) as server:
        trusted, other = {"SSL_CERT_FILE": str(tls.trust)}, base64.b64encode(bytes(32)).decode()

        def once(expect: int, **env: str) -> str:
            return endpoint.run("once", "--server", server.url, env=env, expect=expect).stderr

        once(0, **trusted, COMMANDIT_PINNED_SPKI=f"{other},{tls.pin}")
        asked = len(server.requests)
        assert tls.pin in once(1, **trusted, COMMANDIT_PINNED_SPKI=other)
        assert "TLS" in once(1, COMMANDIT_PINNED_SPKI=tls.pin), "a pin is no trust"
        assert "CONFIG_INVALID" in once(1, **trusted, COMMANDIT_PINNED_SPKI="abc")
        assert len(server.requests) == asked, "the secret went to nobody else"


def test_status_has_exactly_the_documented_keys_also_before_the_first_check(
    repository: Repository, endpoint: Endpoint
) -> None:
    """FR-STA-001, design §11."""
    assert list(endpoint.status()) == STATUS_KEYS
    endpoint.install(repository, "service")
    status = endpoint.status()
    assert list(status) == STATUS_KEYS
    assert status["installed_components"] == [{"name": "service", "version": "1.0.0"}]
    assert (status["assigned_channel"], status["last_operation_status"]) == ("stable", "success")
    assert len(endpoint.run("status").stdout.strip().splitlines()) == 3


def test_the_root_dir_may_stand_before_or_after_the_verb_or_in_the_environment(
    repository: Repository, endpoint: Endpoint
) -> None:
    endpoint.install(repository, "service")
    for arguments in (
        ["--root-dir", endpoint.root, "status", "--json"],
        ["status", "--json", "--root-dir", endpoint.root],
    ):
        assert "1.0.0" in run("commandit-updater", *arguments)
    assert "1.0.0" in endpoint.run("status", env={"COMMANDIT_ROOT_DIR": str(endpoint.root)}).stdout


def test_wrong_usage_is_2_and_a_missing_configuration_is_1(endpoint: Endpoint) -> None:
    endpoint.run("install", "--channel", "nightly", expect=2)
    endpoint.run("fly", expect=2)
    assert "the name is empty" in endpoint.run("status", "--root-dir", "", expect=2).stderr
    assert "install" in endpoint.run("once", expect=1).stderr


def test_a_configuration_that_others_can_write_is_refused_with_the_fix(
    repository: Repository, endpoint: Endpoint
) -> None:
    """FR-CFG-004."""
    endpoint.install(repository, "service")
    endpoint.paths.config.chmod(0o666)
    assert "chmod 600" in endpoint.run("once", expect=3).stderr
    endpoint.run("recover")


def test_only_root_or_the_owner_may_trigger(repository: Repository, endpoint: Endpoint) -> None:
    """FR-UPD-001B."""
    if os.geteuid() != 0:
        pytest.skip("becoming somebody else needs root")
    endpoint.install(repository, "service")
    code = (
        "import os; from agent.cli import commands; import agent.cycle;"
        "os.setgid(65534); os.setuid(65534); commands(['--root-dir', os.sys.argv[1], 'checknow'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(endpoint.root)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 3, result.stderr
    assert "root" in result.stderr


def test_flags_and_environment_override_the_configuration_for_one_run(
    repository: Repository, endpoint: Endpoint
) -> None:
    """FR-CFG-002."""
    endpoint.install(repository, "service")
    endpoint.run("once", "--channel", "alpha")
    assert repository.checks[-1].release_channel == "alpha"
    endpoint.run("once", env={"COMMANDIT_RELEASE_CHANNEL": "beta"})
    assert repository.checks[-1].release_channel == "beta"
    endpoint.once()
    assert repository.checks[-1].release_channel == "stable"


def test_a_lost_manifest_is_mended_by_the_next_cycle(repository: Repository, endpoint: Endpoint) -> None:
    """NFR-REL-003: both copies are gone; the component is installed again over itself."""
    endpoint.install(repository, "service")
    for path in endpoint.paths.state.glob("manifest.json*"):
        path.write_bytes(b"\0" * 64)
    endpoint.once()
    assert endpoint.installed() == endpoint.versions() == {"service": "1.0.0"}
    assert endpoint.runs_live("service")
    assert "STATE_DAMAGED" in endpoint.log()


def test_every_check_is_logged_and_so_are_mistyped_keys(repository: Repository, endpoint: Endpoint) -> None:
    """FR-LOG-001."""
    endpoint.install(repository, "service", "probe")
    config = json.loads(endpoint.paths.config.read_text())
    endpoint.paths.config.write_text(json.dumps(config | {"release_chanel": "beta"}))
    endpoint.run("checknow")
    events = [json.loads(line) for line in endpoint.log().splitlines()]
    first, second = (event for event in events if event["message"] == "checked")
    assert (first["trigger"], first["channel"], first["offered"]) == ("install", "stable", ["service 1.0.0"])
    assert (second["trigger"], second["offered"]) == ("manual", [])
    assert second["reasons"] == {"service": "up_to_date", "probe": "no_release_for_platform"}
    (warning,) = (event for event in events if "mistyped" in event["message"])
    assert (warning["severity"], warning["keys"]) == ("warning", ["release_chanel"])


def test_reports_that_cannot_be_sent_wait_for_the_next_cycle(repository: Repository, endpoint: Endpoint) -> None:
    """Every attempt ends in exactly one final record, delivered once the server takes it."""
    repository.failing["/v1/status"] = Failing()
    endpoint.install(repository, "service")
    assert repository.records == {}
    del repository.failing["/v1/status"]
    endpoint.once()
    assert [record.status for record in repository.records.values()] == ["success"]
    endpoint.once()
    assert list(repository.deliveries.values()) == [1]


def test_reports_are_not_sent_before_the_server_wants_them(repository: Repository, endpoint: Endpoint) -> None:
    """NFR-REL-001: checks go on meanwhile."""
    repository.failing["/v1/status"] = Failing(status=503, headers={"Retry-After": "3600"})
    endpoint.install(repository, "service")
    del repository.failing["/v1/status"]
    endpoint.once()
    assert (repository.calls["/v1/check"], repository.calls["/v1/status"]) == (2, 1)
    assert len(list(endpoint.paths.spool.iterdir())) == 1
    later = {"failures": 0, "reports_after": datetime.now(UTC).isoformat()}
    save(endpoint.paths.state / "schedule.json", later)
    endpoint.once()
    assert [record.status for record in repository.records.values()] == ["success"]
