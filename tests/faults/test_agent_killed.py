"""Promise 1: the agent is killed between any two changes, and so is its recovery; afterwards one whole set is there.

The points are generated: a first run counts the changes of an update of three components, then the agent is killed at
a sample of them (all of them with COMMANDIT_ALL_KILLS=1).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import Package
from support.endpoints import Endpoint, endpoint_in, tree_hash

COMPONENTS = ("service", "probe", "ui")
KEEPING = 'preserve = ["data/**"]'
EVERYTHING = os.environ.get("COMMANDIT_ALL_KILLS") == "1"
SAMPLES = 10
KILLER = Path(__file__).with_name("killed_agent.py")


class Story:
    """An endpoint that is offered one version after the other, and killed on the way to each."""

    def __init__(self, folder: Path, repository: Repository, endpoint: Endpoint) -> None:
        self.counts = folder / "counts"
        self.repository = repository
        self.endpoint = endpoint
        self.number = 0
        self.publish()
        endpoint.install(repository, *COMPONENTS)
        for name in COMPONENTS:
            (endpoint.paths.install(name) / "data").mkdir()
            (endpoint.paths.install(name) / "data" / "kept").write_text(name)

    @property
    def version(self) -> str:
        return f"1.{self.number}.0"

    def publish(self, *, bad: str | None = None) -> None:
        """Publish the next version of everything; ``bad`` is a component whose new version is not healthy."""
        self.number += 1
        for name in COMPONENTS:
            package = Package(name, self.version, top=KEEPING, hooks='pre_install = ["hooks/it"]',
                              hook_files={"hooks/it": "#!/bin/sh\nexit 0\n"})  # fmt: skip
            if name == bad:
                package.check = "#!/bin/sh\nexit 1\n"
                package.health = 'kind = "command"\ncommand = ["bin/check"]\ntimeout_seconds = 0.1'
            self.repository.publish(package.name, package.build())

    def run_killed(self, at: int, *arguments: str) -> bool:
        """Run the agent, and kill it at a change; return whether that change came at all."""
        command = (sys.executable, str(KILLER), str(at), str(self.counts))
        result = self.endpoint.run(*arguments, expect=None, command=command)
        return result.returncode == -signal.SIGKILL

    def count(self, *arguments: str) -> int:
        self.run_killed(0, *arguments)
        return int(self.counts.read_text())

    def whole_set(self) -> str:
        """Return the one version that is installed, running and noted; fail if it is not one whole set."""
        versions = set(self.endpoint.versions().values()) | set(self.endpoint.installed().values())
        assert len(versions) == 1, f"{self.endpoint.versions()}, {self.endpoint.installed()}\n{self.endpoint.log()}"
        assert set(self.endpoint.versions()) == set(COMPONENTS)
        for name in COMPONENTS:
            assert self.endpoint.runs_live(name), f"{name}: {self.endpoint.processes()}\n{self.endpoint.log()[-3000:]}"
            assert (self.endpoint.paths.install(name) / "data" / "kept").read_text() == name
        # Downloads stay after an interruption: the next cycle goes on with them.
        assert [left for left in self.endpoint.leftovers() if "/downloads/" not in left] == []
        return versions.pop()

    def hashes(self) -> dict[str, dict[str, str]]:
        return {name: tree_hash(self.endpoint.paths.install(name)) for name in COMPONENTS}

    def attempts_reported(self) -> None:
        """Every attempt has exactly one final record, delivered or in the spool."""
        records = [*self.repository.records.values()]
        attempts = {(record.details or {})["attempt_id"] for record in records}
        for attempt in attempts:
            of_it = [record.component_name for record in records if (record.details or {})["attempt_id"] == attempt]
            assert sorted(of_it) == sorted(COMPONENTS), f"attempt {attempt}: {of_it}"
        begun = [json.loads(line) for line in self.endpoint.log().splitlines()]
        assert {line["attempt_id"] for line in begun if line["message"] == "step"} == attempts


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with Repository(tmp_path / "downloads") as repository, endpoint_in(tmp_path / "endpoint") as endpoint:
        yield Story(tmp_path, repository, endpoint)


def points(total: int, samples: int, shift: int = 0) -> list[int]:
    """Return the changes at which to kill: all, or evenly spread ones."""
    if EVERYTHING or total <= samples:
        return list(range(1, total + 1))
    return sorted({1 + (shift + index * total // samples) % total for index in range(samples)})


def settle(story: Story, before: str, hashes: dict[str, dict[str, str]]) -> None:
    """After a kill and a recovery: one whole set, the old one or the new one; the next cycle gets to the new one."""
    version = story.whole_set()
    assert version in {before, story.version}
    if version == before:
        assert story.hashes() == hashes, "the old set is the very same"
    settled = story.hashes()
    processes = story.endpoint.processes()
    story.endpoint.run("recover")
    assert (story.hashes(), story.endpoint.processes()) == (settled, processes), "recovering twice changes nothing"


@pytest.mark.timeout(1800 if EVERYTHING else 300)
@pytest.mark.parametrize("half", [0, 1])
def test_an_update_killed_at_any_change_leaves_the_old_set_or_the_new_one(story: Story, half: int) -> None:
    """NFR-REL-003."""
    story.publish()
    total = story.count("once")
    assert total > 60
    for at in points(total, SAMPLES)[half::2]:
        before, hashes = story.whole_set(), story.hashes()
        story.publish()
        story.run_killed(at, "once")
        story.endpoint.run("recover")
        settle(story, before, hashes)
        story.endpoint.once()
        assert story.whole_set() == story.version
        assert story.endpoint.leftovers() == []
    story.attempts_reported()


@pytest.mark.timeout(1800 if EVERYTHING else 300)
def test_a_rollback_killed_at_any_change_still_goes_back(story: Story) -> None:
    """FR-RBK-001: the new version of the last component is bad, so the agent is on its way back or soon will be."""
    before, hashes = story.whole_set(), story.hashes()
    story.publish(bad="ui")
    total = story.count("once")
    assert story.whole_set() == before
    for at in points(total, SAMPLES // 2, shift=total // 2):
        story.publish(bad="ui")
        story.run_killed(at, "once")
        story.endpoint.run("recover")
        settle(story, before, hashes)
        assert story.whole_set() == before


@pytest.mark.timeout(1800 if EVERYTHING else 300)
def test_a_recovery_killed_at_any_change_is_finished_by_the_next(story: Story) -> None:
    """Kill the update in the middle, then the recovery, then recover."""
    story.publish()
    total = story.count("once")
    for number, at in enumerate(points(total, SAMPLES // 2, shift=total // 3)):
        before, hashes = story.whole_set(), story.hashes()
        story.publish()
        if not story.run_killed(at, "once"):
            continue
        # Somewhere else each time; a recovery has up to about 80 changes here.
        for again in (3 + 7 * number, 1 + 2 * number):
            story.run_killed(again, "recover")
        story.endpoint.run("recover")
        settle(story, before, hashes)
        story.endpoint.once()
        assert story.whole_set() == story.version
        assert story.endpoint.leftovers() == []
    story.attempts_reported()


@pytest.mark.timeout(300)
def test_a_first_installation_killed_at_any_change_is_none_or_whole(tmp_path: Path) -> None:
    """FR-BST-002: no component, or all of them; the same command again finishes it."""
    with Repository(tmp_path / "downloads") as repository:
        for name in COMPONENTS:
            package = Package(name, "1.0.0")
            repository.publish(package.name, package.build())
        options = ["install", "--server", repository.url, "--root", str(repository.root_json), "--components",
                   ",".join(COMPONENTS), "--service-manager", "process"]  # fmt: skip
        with endpoint_in(tmp_path / "counted") as endpoint:
            command = (sys.executable, str(KILLER), "0", str(tmp_path / "counts"))
            endpoint.run(*options, command=command)
            total = int((tmp_path / "counts").read_text())
        for at in points(total, 5):
            with endpoint_in(tmp_path / f"endpoint-{at}") as endpoint:
                command = (sys.executable, str(KILLER), str(at), str(tmp_path / "counts"))
                endpoint.run(*options, command=command, expect=None)
                endpoint.run("recover")
                assert set(endpoint.installed()) == set(endpoint.versions()), endpoint.log()[-3000:]
                assert set(endpoint.installed()) in (set(), set(COMPONENTS))
                endpoint.run(*options)
                assert endpoint.installed() == dict.fromkeys(COMPONENTS, "1.0.0")
                assert all(endpoint.runs_live(name) for name in COMPONENTS)
                assert endpoint.leftovers() == []


@pytest.mark.timeout(300)
def test_after_a_power_cut_programs_are_gone_and_come_back(story: Story) -> None:
    """A kill of everything, agent and programs, in the middle of an update."""
    story.publish()
    total = story.count("once")
    for at in points(total, 6, shift=total // 2):
        before, hashes = story.whole_set(), story.hashes()
        story.publish()
        story.run_killed(at, "once")
        story.endpoint.kill_all()
        story.endpoint.run("recover")
        settle(story, before, hashes)
        story.endpoint.once()
        assert story.whole_set() == story.version
        assert story.endpoint.leftovers() == []
