"""Whatever goes wrong in an update, the set before it is back and running (FR-RBK-001, FR-RBK-002, promise 1)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import Package
from support.endpoints import AGENT, Endpoint, tree_hash, wait_until
from support.updating import COMPONENTS, at_step, publish


def test_one_bad_component_takes_the_whole_sequence_back(repository: Repository, endpoint: Endpoint) -> None:
    """FR-UPD-007, FR-RBK-001: hash-identical folders, the old programs running again, one record per attempt."""
    publish(repository, *(Package(name, "1.0.0") for name in COMPONENTS))
    endpoint.install(repository, *COMPONENTS)
    before = {name: tree_hash(endpoint.paths.install(name)) for name in COMPONENTS}
    repository.records.clear()
    bad = Package("probe", "1.1.0", check="#!/bin/sh\necho no good\nexit 7\n",
                  health='kind = "command"\ncommand = ["bin/check"]\ntimeout_seconds = 0.5')  # fmt: skip
    publish(repository, Package("service", "1.1.0"), bad, Package("ui", "1.1.0"))
    said = endpoint.once(expect=1).stderr
    assert "HEALTH_FAILED" in said
    assert "no good" in said
    assert endpoint.installed() == dict.fromkeys(COMPONENTS, "1.0.0")
    assert {name: tree_hash(endpoint.paths.install(name)) for name in COMPONENTS} == before
    assert all(endpoint.runs_live(name) for name in COMPONENTS)
    assert endpoint.leftovers() == []
    status = endpoint.status()
    assert (status["last_operation_status"], status["last_error_code"]) == ("rolled_back", 82)
    verdicts = {record.component_name: (record.status, record.error_code) for record in repository.records.values()}
    assert verdicts == {
        "service": ("cancelled", "SEQUENCE_ROLLED_BACK"),
        "probe": ("failed", "HEALTH_FAILED"),
        "ui": ("cancelled", "SEQUENCE_ROLLED_BACK"),
    }
    (back,) = (json.loads(line) for line in endpoint.log().splitlines() if "an update was taken back" in line)
    assert (back["severity"], back["code_name"], back["component"]) == ("warning", "HEALTH_FAILED", "probe")
    assert (back["from_version"], back["to_version"]) == ("1.0.0", "1.1.0")
    assert back["restored_and_healthy"] is True
    assert "no good" in back["reason"]
    assert {record.details["attempt_id"] for record in repository.records.values() if record.details} == {
        back["attempt_id"]
    }
    verified = [json.loads(line) for line in endpoint.log().splitlines() if back["attempt_id"] in line]
    for what in ("the signature is valid", "the digest is right"):
        assert {one["component"] for one in verified if one["message"] == what} == set(COMPONENTS), "FR-UPD-006"


def test_a_program_that_cannot_be_started_takes_the_sequence_back(repository: Repository, endpoint: Endpoint) -> None:
    """FR-CMP-004, FR-RBK-001, EH-CLI-004."""
    publish(repository, *(Package(name, "1.0.0") for name in ("service", "ui")))
    endpoint.install(repository, "service", "ui")
    absent = Package("ui", "1.1.0", service='kind = "process"\ncommand = ["bin/absent"]')
    publish(repository, Package("service", "1.1.0"), absent)
    assert "START_FAILED" in endpoint.once(expect=1).stderr
    assert endpoint.installed() == endpoint.versions() == {"service": "1.0.0", "ui": "1.0.0"}
    assert all(endpoint.runs_live(name) for name in ("service", "ui"))
    assert endpoint.status()["last_error_code"] == 81


def test_a_program_that_ends_in_its_probation_is_taken_back(repository: Repository, endpoint: Endpoint) -> None:
    """L43, FR-CMP-005: healthy at first, gone soon after."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    short = Package("service", "1.1.0", program="#!/bin/sh\necho giving up\nsleep 0.7\n",
                    health='kind = "process"\nprobation_seconds = 20')  # fmt: skip
    publish(repository, short)
    assert "giving up" in endpoint.once(expect=1).stderr
    assert endpoint.installed() == {"service": "1.0.0"}
    assert endpoint.runs_live("service")


@pytest.mark.parametrize("which", ["pre_install", "post_install"])
@pytest.mark.parametrize(("hook", "why"), [("exit 3", "ended with 3"), ("sleep 60", "ran longer than")])
def test_a_hook_that_fails_or_is_late_takes_the_update_back(
    repository: Repository, endpoint: Endpoint, which: str, hook: str, why: str
) -> None:
    """L44."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    before = endpoint.processes()["service"]
    package = Package(
        "service", "1.1.0", hooks=f'{which} = ["hooks/it"]\ntimeout_seconds = 0.5',
        hook_files={"hooks/it": f"#!/bin/sh\necho from the hook\n{hook}\n"},
    )  # fmt: skip
    publish(repository, package)
    said = endpoint.once(expect=1).stderr
    assert "HOOK_FAILED" in said
    assert why in said
    assert "from the hook" in endpoint.log()
    assert endpoint.versions() == {"service": "1.0.0"}
    assert endpoint.runs_live("service")
    if which == "pre_install":
        assert endpoint.processes()["service"] == before, "nothing was touched yet, so nothing is restarted"


def test_a_release_that_failed_three_times_is_skipped_until_another_appears(
    repository: Repository, endpoint: Endpoint
) -> None:
    """Design §8: quarantined, reported once; the rest goes on."""
    publish(repository, Package("service", "1.0.0"), Package("ui", "1.0.0"))
    endpoint.install(repository, "service", "ui")
    bad = Package(
        "service", "1.1.0", hooks='pre_install = ["hooks/it"]', hook_files={"hooks/it": "#!/bin/sh\nexit 1\n"}
    )
    publish(repository, bad, Package("ui", "1.1.0"))
    for _ in range(3):
        endpoint.once(expect=1)
        assert endpoint.installed() == {"service": "1.0.0", "ui": "1.0.0"}
    said = endpoint.once(expect=5).stderr
    assert "QUARANTINED" in said
    assert endpoint.installed() == {"service": "1.0.0", "ui": "1.1.0"}, "the other component is not held up"
    assert "QUARANTINED" in endpoint.once(expect=1).stderr
    assert endpoint.status()["quarantined"] == [
        {"name": "service", "version": "1.1.0", "attempts": 3, "error_code": 83}
    ]
    assert [record.status for record in repository.final("service")[1:]] == ["failed"] * 3 + ["skipped"]
    publish(repository, Package("service", "1.2.0"))
    endpoint.once()
    assert endpoint.installed() == {"service": "1.2.0", "ui": "1.1.0"}
    assert endpoint.status()["quarantined"] == []


def test_a_rollback_that_fails_leaves_the_component_stopped_and_alone(
    repository: Repository, endpoint: Endpoint, tmp_path: Path
) -> None:
    """FR-RBK-002, EH-CLI-005: critical, no further attempts, until a person says so."""
    once_only = f"#!/bin/sh\ntest -e {tmp_path}/broken && exit 1\nexit 0\n"
    health = 'kind = "command"\ncommand = ["bin/check"]\ntimeout_seconds = 0.5'
    publish(repository, Package("service", "1.0.0", check=once_only, health=health), Package("ui", "1.0.0"))
    endpoint.install(repository, "service", "ui")
    (tmp_path / "broken").touch()
    publish(repository, Package("service", "1.1.0", check=once_only, health=health), Package("ui", "1.1.0"))
    assert "ROLLBACK_FAILED" in endpoint.once(expect=1).stderr
    assert "service" not in endpoint.processes()
    assert endpoint.versions() == {"service": "1.0.0", "ui": "1.0.0"}
    assert endpoint.runs_live("ui")
    assert endpoint.status()["last_operation_status"] == "critical"
    checks = len(repository.checks)
    endpoint.once(expect=5)
    assert endpoint.installed() == {"service": "1.0.0", "ui": "1.1.0"}
    assert "service" not in endpoint.processes()
    assert endpoint.status()["last_error_code"] == 84, "it stays the headline"
    assert repository.checks[checks].health is not None
    assert repository.checks[checks].health.status == "critical"
    (tmp_path / "broken").unlink()
    endpoint.run("checknow", "--retry")
    assert endpoint.installed() == {"service": "1.1.0", "ui": "1.1.0"}
    assert endpoint.runs_live("service")
    assert endpoint.status()["last_error_code"] == 0


def test_a_server_that_lies_about_a_release_gets_nothing_installed(repository: Repository, endpoint: Endpoint) -> None:
    """Promise 2, FR-UPD-006: other bytes under a signed name."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    publish(repository, Package("service", "1.1.0"))
    repository.spoil = {"hash_sha256": "0" * 64}
    assert "SIGNATURE_INVALID" in endpoint.once(expect=1).stderr
    assert endpoint.versions() == {"service": "1.0.0"}
    assert repository.calls["/v1/packages"] == 1, "refused before a byte was downloaded"


def test_a_signal_in_the_middle_takes_the_update_back(repository: Repository, endpoint: Endpoint) -> None:
    """The service manager stops the agent while a component is being checked."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    publish(repository, Package("service", "1.1.0", health='kind = "process"\nprobation_seconds = 60'))
    with subprocess.Popen(
        [*AGENT, "--root-dir", str(endpoint.root), "once"], stderr=subprocess.PIPE, text=True
    ) as agent:
        wait_until(lambda: at_step(endpoint, "health"), "the new version is being checked")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) == 1
    assert endpoint.versions() == {"service": "1.0.0"}
    assert endpoint.runs_live("service")
    assert endpoint.status()["last_error_code"] == 93
    assert endpoint.status()["quarantined"] == []


def test_a_damaged_journal_is_taken_back_to_the_committed_set(repository: Repository, endpoint: Endpoint) -> None:
    """NFR-REL-003: unreadable or unknown means: back to what the manifest says."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    before = tree_hash(endpoint.paths.install("service"))
    publish(repository, Package("service", "1.1.0", health='kind = "process"\nprobation_seconds = 60'))
    with subprocess.Popen([*AGENT, "--root-dir", str(endpoint.root), "once"], stderr=subprocess.DEVNULL) as agent:
        wait_until(lambda: endpoint.versions() == {"service": "1.1.0"} and endpoint.runs_live("service"), "1.1.0 runs")
        agent.kill()
    endpoint.paths.journal.write_bytes(b"\0" * 700)
    assert "taken back" in endpoint.run("recover").stdout
    assert tree_hash(endpoint.paths.install("service")) == before
    assert endpoint.runs_live("service")
    assert endpoint.leftovers() == []
    assert endpoint.run("recover").stdout == ""


def test_a_disk_that_fills_up_while_unpacking_changes_nothing(repository: Repository, endpoint: Endpoint) -> None:
    """FR-UPD-008, EH-CLI-003: a real small file system below the install folders."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    endpoint.paths.install_root.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m,mode=755", "tmpfs", str(endpoint.paths.install_root)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this environment does not allow mounting")
    try:
        publish(repository, Package("service", "1.0.0"))
        endpoint.install(repository, "service")
        before = tree_hash(endpoint.paths.install("service"))
        # Noise with repetitions: it unpacks to more than the space check can know, and is no bomb either.
        publish(repository, Package("service", "1.1.0", files={"big": os.urandom(64 * 1024) * 960}))
        assert "DISK_FULL" in endpoint.once(expect=1).stderr
        assert tree_hash(endpoint.paths.install("service")) == before
        assert endpoint.runs_live("service")
        assert endpoint.leftovers() == []
        assert endpoint.status()["quarantined"] == []
    finally:
        endpoint.kill_all()
        subprocess.run(["umount", "-l", str(endpoint.paths.install_root)], check=True)
