"""The agent replaces itself, watched by the version before; whatever is wrong with the new one, that one stays.

FR-SUP-001 to FR-SUP-003. The new versions are launchers of this repository's agent, each with a fault of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simulators.repository import Failing, Repository
from support.components import Package
from support.endpoints import Endpoint, endpoint_in, tree_hash, wait_until
from support.machine import ROOT
from support.updaters import (
    CANNOT_INITIALISE,
    CANNOT_READ_ITS_STATE,
    CHECKS_ITSELF_AND_DIES,
    CRASHES,
    ENDS_AT_ONCE,
    HANGS,
    HAS_ANOTHER_SECRET,
    SAYS_IT_IS_FIT_AT_ONCE,
    package_of,
    runs_of,
    updater,
)

HALTED = ROOT / "tests/faults/halted_agent.py"
KILLER = ROOT / "tests/faults/killed_agent.py"
EVERYTHING = os.environ.get("COMMANDIT_ALL_KILLS") == "1"
OLD = {"service": "1.0.0", "updater": "1.0.0"}
NEW = {"service": "2.0.0", "updater": "2.0.0"}


class Story:
    """An endpoint whose agent is the installed component ``updater``."""

    def __init__(self, folder: Path, repository: Repository, endpoint: Endpoint) -> None:
        self.ran = folder / "ran"
        self.repository = repository
        self.endpoint = endpoint
        repository.secret = "s3cret"
        (folder / "secret").write_text("s3cret\n")
        self.publish("1.0.0")
        endpoint.install(repository, "service", "updater", more=("--secret-file", str(folder / "secret")))
        self.live = endpoint.paths.install("updater")
        self.program = self.live / "bin" / "commandit-updater"
        self.ran.write_text("")

    def publish(
        self, version: str, behaviour: str = "", *, package: Package | None = None, timeout: float = 40
    ) -> None:
        """Publish a version of the service and of the updater."""
        for one in (Package("service", version), package or updater(version, self.ran, behaviour, timeout)):
            self.repository.publish(one.name, one.build())

    def run(self, *arguments: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run the installed agent."""
        return self.endpoint.run(*arguments, expect=expect, command=(str(self.program),))

    def settled(self) -> dict[str, str]:
        """Return the installed set; fail unless folders, manifest and programs agree, and nothing is left over."""
        installed = self.endpoint.installed()
        assert self.endpoint.versions() == installed, self.endpoint.log()[-3000:]
        assert self.endpoint.runs_live("service")
        assert [left for left in self.endpoint.leftovers() if "/downloads/" not in left] == []
        return installed


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with Repository(tmp_path / "downloads") as repository, endpoint_in(tmp_path / "endpoint") as endpoint:
        yield Story(tmp_path, repository, endpoint)


def test_the_agent_updates_itself_last_and_in_one_sequence_with_the_others(story: Story) -> None:
    story.publish("2.0.0")
    assert "Installed: service 2.0.0, updater 2.0.0" in story.run("once").stdout
    assert story.settled() == NEW
    assert runs_of(story.ran, "1.0.0") == ["once"]
    assert runs_of(story.ran, "2.0.0") == ["run --trial 1", "selfcheck"], "nothing else before it was committed"
    record = story.repository.final("updater")[-1]
    assert (record.status, record.current_version, record.requested_version) == ("success", "1.0.0", "2.0.0")
    story.run("once")
    assert story.repository.checks[-1].updater_version == "2.0.0"
    assert story.endpoint.status()["installed_components"][-1] == {"name": "updater", "version": "2.0.0"}


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (CRASHES, "no such library"),
        (ENDS_AT_ONCE, "it ended without saying that it is fit"),
        (SAYS_IT_IS_FIT_AT_ONCE, "it ended before the 1 s were over"),
        (HANGS, "it hung"),
        (CANNOT_INITIALISE, "cannot initialise"),
        (CANNOT_READ_ITS_STATE, "CONFIG_INVALID"),
        (CHECKS_ITSELF_AND_DIES, "it ended with -9"),
        (HAS_ANOTHER_SECRET, "UNAUTHORIZED"),
    ],
    ids=[
        "crashes",
        "ends-at-once",
        "says-it-is-fit",
        "hangs",
        "cannot-initialise",
        "cannot-read-its-state",
        "dies-after-its-check",
        "secret-refused",
    ],
)
def test_a_new_agent_that_is_not_fit_is_taken_back_with_its_whole_sequence(
    story: Story, behaviour: str, said: str
) -> None:
    """FR-SUP-003, FR-UPD-007."""
    before = tree_hash(story.live)
    story.publish("2.0.0", behaviour, timeout=2 if behaviour == HANGS else 40)
    story.run("once", expect=1)
    assert story.settled() == OLD
    assert tree_hash(story.live) == before
    status = story.endpoint.status()
    assert (status["last_operation_status"], status["last_error_code"]) == ("rolled_back", 82)
    assert "the new agent 2.0.0 is not fit" in status["last_error_message"]
    assert said in status["last_error_message"]
    finals = [story.repository.final(name)[1:] for name in OLD]
    assert [[(one.status, one.error_code) for one in records] for records in finals] == [
        [("cancelled", "SEQUENCE_ROLLED_BACK")],
        [("failed", "HEALTH_FAILED")],
    ]
    assert not {"once", "recover", "run"} & set(runs_of(story.ran, "2.0.0"))


def test_a_damaged_program_is_taken_back_and_skipped_after_three_attempts(story: Story) -> None:
    story.publish("2.0.0", package=package_of("2.0.0", os.urandom(5000)))
    for _ in range(3):
        assert "cannot be started" in story.run("once", expect=1).stderr
    assert story.settled() == OLD
    service = Package("service", "2.0.1")
    story.repository.publish(service.name, service.build())
    story.run("once", expect=5)
    assert story.settled() == {"service": "2.0.1", "updater": "1.0.0"}
    assert [(one["name"], one["attempts"]) for one in story.endpoint.status()["quarantined"]] == [("updater", 3)]


@pytest.mark.parametrize(
    ("package", "said"),
    [
        (Package("updater", "2.0.0", service='kind = "none"'), "has no executable bin/commandit-updater"),
        (Package("updater", "2.0.0", files={"bin/commandit-updater": "#!/bin/sh\n"}), "the agent registers itself"),
    ],
    ids=["no-program", "a-service"],
)
def test_a_package_that_is_no_agent_is_refused_before_anything_stops(story: Story, package: Package, said: str) -> None:
    (before,) = story.endpoint.processes()["service"]
    story.publish("2.0.0", package=package)
    assert said in story.run("once", expect=1).stderr
    assert (story.settled(), story.endpoint.processes()["service"]) == (OLD, [before])


def test_a_server_that_neither_of_both_reaches_takes_nothing_back(story: Story) -> None:
    """The issue: connection loss to the server alone is no reason to roll back."""
    story.publish("2.0.0")
    story.repository.failing["/v1/check"] = Failing(after=1)
    story.run("once")
    assert story.settled() == NEW
    assert runs_of(story.ran, "2.0.0")[2:] == ["run --trial 1 --offline", "selfcheck --offline"]


@pytest.mark.parametrize("step", ["exchange", "health", "commit", "clean"])
def test_a_power_cut_at_any_step_leaves_one_whole_set_and_the_committed_agent_recovers(story: Story, step: str) -> None:
    """FR-SUP-002: whatever lies where the units point to does the recovery; before *commit* that is the old one."""
    story.publish("2.0.0")
    component = "updater" if step in {"exchange", "health"} else "-"
    with subprocess.Popen(
        [sys.executable, HALTED, step, component, "--root-dir", story.endpoint.root, "once"], stdout=subprocess.PIPE
    ) as cycle:
        assert cycle.stdout is not None
        assert cycle.stdout.readline() == b"halted\n"
        cycle.kill()
    story.endpoint.kill_all()
    committed = step in {"commit", "clean"}
    story.run("recover")
    assert story.settled() == (NEW if committed else OLD)
    assert runs_of(story.ran, "2.0.0" if committed else "1.0.0")[-1] == "recover"
    assert committed or "recover" not in runs_of(story.ran, "2.0.0")
    story.run("once")
    assert story.settled() == NEW
    finals = [(one.component_name, one.status) for one in story.repository.records.values()][2:]
    assert sorted(finals).count(("updater", "success")) == 1
    assert len(finals) == (2 if committed else 4)


@pytest.mark.timeout(3600 if EVERYTHING else 300)
def test_a_power_cut_at_any_change_leaves_one_whole_set(story: Story) -> None:
    """NFR-REL-003: the points are generated; all of them with COMMANDIT_ALL_KILLS=1."""
    counts = story.ran.with_name("counts")

    def killed(at: int) -> None:
        command = (sys.executable, str(KILLER), str(at), str(counts))
        story.endpoint.run("once", expect=None, command=command)

    story.publish("2.0.0")
    killed(0)
    total = int(counts.read_text())
    points = range(1, total + 1) if EVERYTHING else range(total // 4, total, total // 4)
    for number, at in enumerate(points, 3):
        before, version = story.settled(), f"{number}.0.0"
        story.publish(version)
        killed(at)
        story.endpoint.kill_all()
        story.run("recover")
        after = story.settled()
        assert after in (before, dict.fromkeys(before, version)), f"killed at {at} of {total}"
        assert after != before or "recover" not in runs_of(story.ran, version)
        story.run("once")
        assert story.settled() == dict.fromkeys(before, version)


def test_a_power_cut_while_the_new_agent_is_on_trial_ends_the_trial_as_well(story: Story) -> None:
    story.publish("2.0.0", HANGS)
    with subprocess.Popen([story.program, "--root-dir", story.endpoint.root, "once"]) as cycle:
        wait_until(lambda: runs_of(story.ran, "2.0.0"), "the new agent is on trial")
        cycle.kill()
    staged = str(story.live.with_name(".updater.new")).encode()
    wait_until(lambda: not any(staged in line for line in command_lines()), "the trial has ended")
    story.run("recover")
    assert story.settled() == OLD


@contextmanager
def resident(story: Story) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [story.program, "--root-dir", story.endpoint.root, "run"], stderr=subprocess.DEVNULL
    ) as agent:
        try:
            wait_until(lambda: "recover" in runs_of(story.ran, "1.0.0"), "it has begun")
            yield agent
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0
        finally:
            agent.kill()


def check_now(story: Story, agent: subprocess.Popen[bytes]) -> None:
    """Ask the resident agent for a check when it waits."""
    wait_until(lambda: "poll" in Path(f"/proc/{agent.pid}/wchan").read_text(), "the daemon waits")
    agent.send_signal(signal.SIGHUP)


def test_the_resident_agent_becomes_the_new_version_in_the_same_process(story: Story) -> None:
    """So whoever started it, be it systemd or anything else, still has its process; and it goes on updating."""
    with resident(story) as agent:
        for version in ("2.0.0", "3.0.0"):
            story.publish(version)
            check_now(story, agent)
            wait_until(lambda version=version: "recover" in runs_of(story.ran, version), f"{version} is resident")
            assert story.endpoint.installed() == {"service": version, "updater": version}
            assert f"COMMANDIT_PROGRAM={story.program}".encode() in Path(f"/proc/{agent.pid}/environ").read_bytes()
            assert runs_of(story.ran, version) == ["run --trial 1", "selfcheck", "run", "recover"]
        assert story.endpoint.runs_live("service")
    assert story.settled() == {"service": "3.0.0", "updater": "3.0.0"}


def test_the_resident_agent_stays_what_it_is_when_the_new_version_is_not_fit(story: Story) -> None:
    with resident(story) as agent:
        story.publish("2.0.0", CRASHES)
        check_now(story, agent)
        wait_until(lambda: story.repository.final("updater")[1:], "the attempt is reported")
        story.publish("2.1.0")
        check_now(story, agent)
        wait_until(lambda: "recover" in runs_of(story.ran, "2.1.0"), "the next version is resident")
    assert runs_of(story.ran, "1.0.0").count("run") == 1
    assert story.settled() == {"service": "2.1.0", "updater": "2.1.0"}


@pytest.mark.parametrize("seconds", ["soon", "nan", "inf", "-1"])
def test_a_trial_of_no_length_is_wrong_usage(tmp_path: Path, seconds: str) -> None:
    """Design §11: no traceback, and no trial that never ends."""
    said = Endpoint(tmp_path).run("run", "--trial", seconds, expect=2).stderr
    assert said == f"--trial needs a number of seconds, not {seconds!r}\n"


def test_on_trial_a_daemon_must_stay_after_its_check(story: Story) -> None:
    """It is no proof that it can end."""
    command = [story.program, "--root-dir", story.endpoint.root, "run", "--trial", "60"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as trial:
        assert trial.stderr is not None
        assert trial.stderr.readline() == b"selfcheck ended with 0\n"
        wait_until(lambda: "poll" in Path(f"/proc/{trial.pid}/wchan").read_text(), "the daemon waits")
        trial.terminate()
        assert trial.wait(60) == 1


def test_what_requires_the_new_agent_is_installed_by_it(story: Story) -> None:
    new = Package("service", "2.0.0")
    story.repository.publish(new.name, new.build(), requires={"updater": "2.0.0"})
    agent = updater("2.0.0", story.ran)
    story.repository.publish(agent.name, agent.build())
    story.run("once")
    assert story.settled() == {"service": "1.0.0", "updater": "2.0.0"}
    story.run("once")
    assert story.settled() == NEW
    assert runs_of(story.ran, "2.0.0")[-1] == "once"


def test_a_recalled_agent_goes_back_to_the_one_before(story: Story) -> None:
    """L51."""
    story.publish("2.0.0")
    story.run("once")
    story.repository.block(updater("2.0.0", story.ran).name)
    story.run("once")
    assert story.settled() == {"service": "2.0.0", "updater": "1.0.0"}


def test_an_agent_of_a_python_environment_installs_the_component_and_stays_what_it_is(
    tmp_path: Path, story: Story
) -> None:
    """It reports its own version; what it installs is on trial like any other."""
    story.publish("2.0.0")
    story.endpoint.once()
    assert story.settled() == NEW
    story.endpoint.once()
    assert story.repository.checks[-1].updater_version not in set(NEW.values())
    assert runs_of(story.ran, "2.0.0") == ["run --trial 1", "selfcheck"]


def command_lines() -> Iterator[bytes]:
    """Yield the command line of every process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue
