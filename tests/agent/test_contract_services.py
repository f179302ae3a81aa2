"""The contract of the port ``ServiceManager``, on every adapter (FR-CMP-001, FR-CMP-004).

The programs are real everywhere; launchd, systemd and the service control manager of Windows are simulators
(agent/README.md). The real systemd is in tests/e2e/test_systemd_components.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.endpoints import wait_until
from support.managers import BENCHES, Bench

from agent.codes import Code
from agent.errors import AgentError

POLITE = """\
#!/bin/sh
trap 'echo asked >> said; exit 0' TERM
echo up >> said
while :; do sleep 0.05; done
"""
STUBBORN = """\
#!/bin/sh
trap 'echo asked >> said' TERM
echo up >> said
while :; do sleep 0.05; done
"""
SHORT = "#!/bin/sh\necho up >> said\nexit 3\n"


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with BENCHES[request.param](tmp_path) as bench:
        yield bench


def test_what_was_never_started_neither_runs_nor_should_nor_said_anything(bench: Bench) -> None:
    manager, unit = bench.fresh(), bench.unit(POLITE)
    assert not manager.running(unit)
    assert not manager.wanted("service")
    assert manager.last_output("service") == ""
    manager.stop(unit)
    assert bench.lines() == []


def test_starting_twice_is_starting_once(bench: Bench) -> None:
    manager, unit = bench.fresh(), bench.unit(POLITE)
    manager.start(unit)
    wait_until(lambda: bench.lines() == ["up"], "it runs")
    manager.start(unit)
    bench.fresh().start(unit)
    assert manager.running(unit)
    assert manager.wanted("service")
    time.sleep(0.2)
    assert bench.lines() == ["up"]


def test_a_program_is_asked_before_it_is_forced_and_stopping_twice_is_stopping_once(bench: Bench) -> None:
    manager, unit = bench.fresh(), bench.unit(POLITE)
    manager.start(unit)
    wait_until(lambda: bench.lines() == ["up"], "it runs")
    manager.stop(unit)
    assert not manager.running(unit)
    assert not manager.wanted("service")
    manager.stop(unit)
    assert bench.lines() == ["up", "asked"]


def test_a_program_that_does_not_listen_is_ended_when_its_time_is_over(bench: Bench) -> None:
    manager, unit = bench.fresh(), bench.unit(STUBBORN, timeout=1.0)
    manager.start(unit)
    wait_until(lambda: bench.lines() == ["up"], "it runs")
    began = time.monotonic()
    manager.stop(unit)
    assert time.monotonic() - began > 0.9
    assert not manager.running(unit)
    assert bench.lines() == ["up", "asked"]


def test_another_process_of_the_agent_finds_what_the_first_started(bench: Bench) -> None:
    unit = bench.unit(POLITE)
    bench.fresh().start(unit)
    wait_until(lambda: bench.lines() == ["up"], "it runs")
    other = bench.fresh()
    assert other.running(unit)
    assert other.wanted("service")
    other.start(unit)
    other.stop(unit)
    assert not bench.fresh().running(unit)
    assert bench.lines() == ["up", "asked"]


def test_a_program_that_ended_does_not_run_but_should_and_can_be_started_again(bench: Bench) -> None:
    manager, unit = bench.fresh(), bench.unit(SHORT)
    manager.start(unit)
    wait_until(lambda: not manager.running(unit), "it ended")
    assert manager.wanted("service")
    assert bench.fresh().wanted("service")
    bench.unit(POLITE)
    manager.start(unit)
    wait_until(lambda: bench.lines() == ["up", "up"], "it runs again")
    assert manager.running(unit)


def test_a_removed_program_has_ended_and_the_system_knows_nothing_of_it(bench: Bench) -> None:
    manager, unit = bench.fresh(), bench.unit(POLITE)
    manager.start(unit)
    wait_until(lambda: bench.lines() == ["up"], "it runs")
    assert bench.known() == [bench.known_as]
    manager.remove(unit)
    manager.remove(unit)
    assert bench.lines() == ["up", "asked"]
    assert (bench.known(), manager.wanted("service")) == ([], False)
    manager.start(bench.unit(POLITE))
    wait_until(lambda: bench.lines() == ["up", "asked", "up"], "it runs again")


def test_after_a_stop_the_next_start_takes_the_program_that_lies_there_then(bench: Bench) -> None:
    manager = bench.fresh()
    for version in ("first", "second"):
        unit = bench.unit(POLITE.replace("up", version))
        manager.start(unit)
        wait_until(lambda version=version: version in bench.lines(), "it runs")
        manager.stop(unit)
    assert bench.lines() == ["first", "asked", "second", "asked"]


@pytest.mark.parametrize("missing", ["program", "permission"])
def test_what_cannot_be_started_is_said_by_its_name(bench: Bench, missing: str) -> None:
    unit = bench.unit(POLITE)
    program = bench.folder / "bin" / "serve"
    if missing == "program":
        program.unlink()
    else:
        program.chmod(0o644)
    manager = bench.fresh()
    with pytest.raises(AgentError, match=r"service: .*cannot start.*serve") as caught:
        manager.start(unit)
    assert caught.value.code is Code.START_FAILED
    assert not manager.running(unit)
    manager.stop(unit)
    assert not manager.wanted("service")


def test_what_a_program_started_ends_with_it(bench: Bench) -> None:
    child = "(trap '' TERM; while :; do sleep 0.05; echo alive >> child; done) &\n"
    manager, unit = bench.fresh(), bench.unit(POLITE.replace("echo up", child + "echo up"), timeout=1.0)
    manager.start(unit)
    wait_until(lambda: "alive" in bench.lines("child"), "the child runs")
    manager.stop(unit)
    time.sleep(0.1)
    before = bench.lines("child")
    time.sleep(0.3)
    assert bench.lines("child") == before


@pytest.mark.parametrize("bench", ["process", "launchd"], indirect=True)
def test_the_last_words_are_those_of_the_last_launch(bench: Bench) -> None:
    """Not on Windows: a service has no standard output (agent/README.md)."""
    manager = bench.fresh()
    for word in ("first", "second"):
        unit = bench.unit(POLITE.replace("echo up", f"echo {word} >&2; echo up"))
        manager.start(unit)
        wait_until(lambda word=word: word in manager.last_output("service"), "it spoke")
        manager.stop(unit)
    assert manager.last_output("service").splitlines()[0] == "second"
    assert (bench.folder / "run" / "service.log").stat().st_mode & 0o777 == 0o600
