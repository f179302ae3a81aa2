"""The agent's whole cycle, with real packages, processes and signatures, against the real decision."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import DEAF, Package, web
from support.endpoints import AGENT, Endpoint, endpoint_in, tree_hash, wait_until
from support.programs import free_port

from agent.lock import only_one
from repo_server.core.wire import UpdateStatus

COMPONENTS = ("service", "probe", "ui")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(tmp_path / "downloads") as repository:
        yield repository


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with endpoint_in(tmp_path / "endpoint") as endpoint:
        yield endpoint


def publish(repository: Repository, *packages: Package) -> None:
    for package in packages:
        repository.publish(package.name, package.build())


def at_step(endpoint: Endpoint, step: str) -> bool:
    """Whether the journal is at a step just now."""
    return endpoint.paths.journal.exists() and f'"step": "{step}"' in endpoint.paths.journal.read_text()


def test_three_components_are_installed_and_updated_together(repository: Repository, endpoint: Endpoint) -> None:
    """FR-BST-002, FR-UPD-007: the server's order, exactly the payload, the new programs running."""
    publish(repository, *(Package(name, "1.0.0") for name in COMPONENTS))
    endpoint.install(repository, *COMPONENTS)
    assert endpoint.installed() == dict.fromkeys(COMPONENTS, "1.0.0")
    assert all(endpoint.runs_live(name) for name in COMPONENTS)
    publish(repository, *(Package(name, "1.1.0") for name in COMPONENTS))
    endpoint.once()
    assert endpoint.installed() == endpoint.versions() == dict.fromkeys(COMPONENTS, "1.1.0")
    assert all(endpoint.runs_live(name) for name in COMPONENTS)
    assert endpoint.leftovers() == []
    payload = Package("service", "1.1.0").payload()
    live = endpoint.paths.install("service")
    assert {str(path.relative_to(live)): path.read_bytes() for path in live.rglob("*") if path.is_file()} == payload
    assert {record.status for record in repository.records.values()} == {UpdateStatus.SUCCESS}
    assert len(repository.records) == 6


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


def test_a_program_that_ignores_sigterm_is_killed(repository: Repository, endpoint: Endpoint) -> None:
    """FR-CMP-001."""
    deaf = Package(
        "service", "1.0.0", program=DEAF, service='kind = "process"\ncommand = ["bin/serve"]\nstop_timeout_seconds = 1'
    )
    publish(repository, deaf)
    endpoint.install(repository, "service")
    before = endpoint.processes()["service"]
    publish(repository, Package("service", "1.1.0"))
    endpoint.once()
    assert endpoint.installed() == {"service": "1.1.0"}
    assert endpoint.runs_live("service")
    assert endpoint.processes()["service"] != before


def test_files_that_a_package_preserves_survive_with_mode_and_owner(repository: Repository, endpoint: Endpoint) -> None:
    """L42, FR-CMP-003: the globs of the new package decide; everything else is exactly the payload."""
    keeping = 'preserve = ["etc/*.conf", "data/**"]'
    publish(repository, Package("service", "1.0.0", top=keeping, files={"etc/a.conf": "default", "old.txt": "x"}))
    endpoint.install(repository, "service")
    live = endpoint.paths.install("service")
    (live / "etc" / "a.conf").write_text("mine")
    (live / "etc" / "a.conf").chmod(0o640)
    (live / "etc" / "sub").mkdir()
    (live / "etc" / "sub" / "b.conf").write_text("not covered by one star")
    (live / "data" / "deep" / "er").mkdir(parents=True)
    (live / "data" / "deep" / "er" / "x.db").write_bytes(b"rows")
    (live / "data" / "link").symlink_to("deep/er/x.db")
    (live / "data" / "empty").mkdir(mode=0o750)
    new = Package("service", "1.1.0", top=keeping, files={"etc/a.conf": "newer default", "etc/c.conf": "added"})
    publish(repository, new)
    endpoint.once()
    assert (live / "etc" / "a.conf").read_text() == "mine"
    assert (live / "etc" / "a.conf").stat().st_mode & 0o777 == 0o640
    assert (live / "data" / "deep" / "er" / "x.db").read_bytes() == b"rows"
    assert (live / "data" / "link").readlink() == Path("deep/er/x.db")
    found = {str(path.relative_to(live)) for path in live.rglob("*") if not path.is_dir() or not any(path.iterdir())}
    kept = {"etc/a.conf", "data/deep/er/x.db", "data/link", "data/empty"}
    assert found == set(new.payload()) | kept


def test_what_a_program_writes_until_it_is_stopped_is_preserved(repository: Repository, endpoint: Endpoint) -> None:
    """L42: the new folder is prepared while the old program still writes into the old one."""
    writing = """#!/bin/sh
n=0
trap 'echo $n > data/last; rm -f data/passing; exit 0' TERM
mkdir -p data
touch data/passing
while :; do n=$((n+1)); echo $n >> data/log; sleep 0.02; done
"""
    publish(repository, Package("service", "1.0.0", program=writing, top='preserve = ["data/**"]'))
    endpoint.install(repository, "service")
    live = endpoint.paths.install("service")
    wait_until((live / "data" / "log").exists, "the program writes")
    publish(repository, Package("service", "1.1.0", top='preserve = ["data/**"]'))
    endpoint.once()
    lines = (live / "data" / "log").read_text().split()
    assert lines[-1] == (live / "data" / "last").read_text().strip()
    assert not (live / "data" / "passing").exists()


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


def test_hooks_run_from_the_staged_folder_before_and_after_the_exchange(
    repository: Repository, endpoint: Endpoint, tmp_path: Path
) -> None:
    """L44."""
    hook = f'#!/bin/sh\necho "$COMMANDIT_HOOK $(cat "$COMMANDIT_INSTALL_FOLDER/VERSION")" $(ls) >> {tmp_path}/said\n'
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    publish(repository, Package(
        "service", "1.1.0", hook_files={"hooks/it": hook},
        hooks='pre_install = ["hooks/it"]\npost_install = ["hooks/it"]',
    ))  # fmt: skip
    endpoint.once()
    said = (tmp_path / "said").read_text().splitlines()
    assert said == ["pre_install 1.0.0 hooks package.toml", "post_install 1.1.0 hooks package.toml"]


def test_a_recalled_release_goes_back_to_the_one_before(repository: Repository, endpoint: Endpoint) -> None:
    """L51."""
    publish(repository, Package("service", "1.0.0"), Package("service", "1.1.0"))
    endpoint.install(repository, "service")
    assert endpoint.installed() == {"service": "1.1.0"}
    repository.block(Package("service", "1.1.0").name)
    endpoint.once()
    assert endpoint.versions() == {"service": "1.0.0"}
    assert endpoint.runs_live("service")


def test_a_server_that_is_away_changes_nothing_and_is_said(repository: Repository, endpoint: Endpoint) -> None:
    """EH-CLI-001, FR-STA-001."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    before = endpoint.processes()
    result = endpoint.run("once", "--server", "http://127.0.0.1:9", expect=1)
    assert "NETWORK" in result.stderr
    status = endpoint.status()
    assert (status["last_operation_status"], status["last_error_code"]) == ("failed", 20)
    assert status["installed_components"] == [{"name": "service", "version": "1.0.0"}]
    assert endpoint.processes() == before
    assert "NETWORK" in endpoint.run("status").stdout


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


def test_a_second_agent_leaves_with_exit_code_4(repository: Repository, endpoint: Endpoint) -> None:
    """FR-UPD-009, NFR-REL-005."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    with only_one(endpoint.paths.lock):
        said = endpoint.run("checknow", expect=4).stderr
    assert "BUSY" in said
    assert str(os.getpid()) in said


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


def test_a_component_that_died_is_started_again_by_recovery(repository: Repository, endpoint: Endpoint) -> None:
    """A reboot ends all programs; the first thing the agent does is to bring them back."""
    publish(repository, Package("service", "1.0.0"), Package("ui", "1.0.0"))
    endpoint.install(repository, "service", "ui")
    endpoint.run("stop", "ui")
    endpoint.kill_all()
    endpoint.run("recover")
    assert endpoint.runs_live("service")
    assert "ui" not in endpoint.processes(), "what was stopped by hand stays stopped"
    endpoint.run("start", "ui")
    assert endpoint.runs_live("ui")
    endpoint.run("stop")
    assert endpoint.processes() == {}


@pytest.mark.parametrize("damage", ["zeroed", "removed"])
def test_an_update_stops_a_program_whose_run_file_was_lost(
    repository: Repository, endpoint: Endpoint, damage: str
) -> None:
    """Else the old one would run on beside the new one."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    publish(repository, Package("service", "1.1.0"))
    file = endpoint.paths.run / "service.json"
    if damage == "zeroed":
        file.write_bytes(bytes(file.stat().st_size))
    else:
        file.unlink()
    endpoint.once()
    assert endpoint.installed() == {"service": "1.1.0"}
    assert endpoint.runs_live("service")


def test_an_agent_that_a_component_calls_is_not_stopped_with_it(repository: Repository, endpoint: Endpoint) -> None:
    """FR-UPD-001B: the main service may trigger the update that replaces it."""
    command = f"{sys.executable} -m agent --root-dir {endpoint.root} checknow"
    calling = f"#!/bin/sh\nuntil test -e go; do sleep 0.05; done\n{command} &\nwait\nsleep 3600\n"
    publish(repository, Package("service", "1.0.0", program=calling))
    endpoint.install(repository, "service")
    publish(repository, Package("service", "1.1.0"))
    (endpoint.paths.install("service") / "go").touch()
    wait_until(lambda: len(repository.final("service")) == 2, "it is updated and reported")
    assert endpoint.installed() == {"service": "1.1.0"}
    assert endpoint.runs_live("service")
    assert repository.final("service")[-1].trigger_source == "manual"


def test_web_components_are_checked_over_http(repository: Repository, endpoint: Endpoint) -> None:
    """L43."""
    port = free_port()
    publish(repository, web("service", "1.0.0", port))
    endpoint.install(repository, "service")
    publish(repository, web("service", "1.1.0", port, answer=500, timeout=1))
    assert "answered 500" in endpoint.once(expect=1).stderr
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        assert response.read() == b"1.0.0"


def test_a_second_agent_waits_for_the_first_as_long_as_it_is_told_to(
    repository: Repository, endpoint: Endpoint
) -> None:
    """FR-UPD-009: and who leaves is in the log."""
    publish(repository, Package("service", "1.0.0"))
    endpoint.install(repository, "service")
    endpoint.run("checknow", "--wait", "0")
    with ExitStack() as first:
        first.enter_context(only_one(endpoint.paths.lock))
        assert "BUSY" in endpoint.run("checknow", "--wait", "0.3", expect=4).stderr
        with subprocess.Popen(
            [*AGENT, "--root-dir", str(endpoint.root), "once", "--wait", "60"], stdout=subprocess.DEVNULL
        ) as second:
            wait_until(lambda: "sleep" in Path(f"/proc/{second.pid}/wchan").read_text(), "it waits")
            first.close()
            assert second.wait(60) == 0
    busy = [json.loads(line) for line in endpoint.log().splitlines() if '"BUSY"' in line]
    assert [(event["severity"], event["trigger"]) for event in busy] == [("warning", "manual")]
    assert len(repository.checks) == 3
