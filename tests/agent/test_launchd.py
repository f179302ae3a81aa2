"""launchd beyond the contract: boots, faults of ``launchctl``, and an agent that is killed anywhere (FR-CMP-001)."""

from __future__ import annotations

import itertools
import os
import plistlib
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from simulators.launchctl import Killed, LaunchdSimulator
from support.endpoints import wait_until
from support.managers import Bench, QuickClock, launchd_on

from agent.codes import Code
from agent.errors import AgentError
from agent.platform.launchctl import Answer, Job, launchctl, parse_print
from agent.ports import Unit
from repo_server.core.package import ServiceKind

STAYS = "#!/bin/sh\necho up >> said\nexec sleep 60\n"
LABEL = "commandit-service"


@pytest.fixture
def simulator() -> Iterator[LaunchdSimulator]:
    simulator = LaunchdSimulator()
    yield simulator
    simulator.deaf = False
    simulator.power_off()


@pytest.fixture
def bench(tmp_path: Path, simulator: LaunchdSimulator) -> Bench:
    return Bench(tmp_path, ServiceKind.LAUNCHD, lambda: launchd_on(tmp_path, simulator, QuickClock()))


def plists(bench: Bench) -> list[str]:
    return sorted(path.name for path in (bench.folder / "LaunchDaemons").iterdir())


def processes(simulator: LaunchdSimulator) -> int:
    return sum(job.process is not None for job in simulator.jobs.values())


def test_a_property_list_says_what_launchd_needs_and_only_root_may_change_it(bench: Bench) -> None:
    unit = bench.unit(STAYS, timeout=2.5)
    bench.fresh().start(unit)
    path = bench.folder / "LaunchDaemons" / f"{LABEL}.plist"
    content = plistlib.loads(path.read_bytes())
    assert content["Label"] == LABEL
    assert content["ProgramArguments"] == [str(bench.folder / "bin" / "serve"), "--port", "0"]
    assert content["ExitTimeOut"] == 3
    assert content["EnvironmentVariables"]["COMMANDIT_COMPONENT"] == "service"
    assert path.stat().st_mode & 0o777 == 0o644


def test_no_stop_timeout_is_not_for_ever(bench: Bench) -> None:
    """To launchd, ExitTimeOut = 0 means that it never forces."""
    bench.fresh().start(bench.unit(STAYS, timeout=0.0))
    content = plistlib.loads((bench.folder / "LaunchDaemons" / f"{LABEL}.plist").read_bytes())
    assert content["ExitTimeOut"] == 1


def test_what_should_run_comes_up_at_boot_and_what_was_stopped_does_not(
    bench: Bench, simulator: LaunchdSimulator
) -> None:
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    simulator.boot(bench.folder / "LaunchDaemons")
    assert bench.fresh().running(unit)
    bench.fresh().stop(unit)
    simulator.boot(bench.folder / "LaunchDaemons")
    assert not bench.fresh().running(unit)


def test_a_version_with_another_label_leaves_nothing_under_the_old_one(
    bench: Bench, simulator: LaunchdSimulator
) -> None:
    manager = bench.fresh()
    manager.start(bench.unit(STAYS))
    renamed = bench.unit(STAYS, name="com.commandit.service")
    manager.start(renamed)
    assert list(simulator.jobs) == ["com.commandit.service"]
    assert plists(bench) == ["com.commandit.service.plist"]
    # And back, by a unit that knows only the older label.
    bench.fresh().stop(bench.unit(STAYS))
    assert simulator.jobs == {}
    assert plists(bench) == []


def test_a_program_that_launchd_started_again_has_ended_for_who_started_it(
    bench: Bench, simulator: LaunchdSimulator
) -> None:
    """Else a version that crashes every few seconds would pass its probation."""
    simulator.throttle_seconds = 0
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    process = simulator.jobs[LABEL].process
    assert process is not None
    process.kill()
    wait_until(lambda: bench.fresh().running(unit) and simulator.jobs[LABEL].runs == 2, "it is started again")
    assert not manager.running(unit)
    # Another process of the agent has nothing to mend here.
    assert bench.fresh().running(unit)


def test_a_disabled_service_is_enabled(bench: Bench, simulator: LaunchdSimulator) -> None:
    simulator.disabled.add(LABEL)
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    assert manager.running(unit)


def test_launchd_that_is_still_busy_with_the_label_is_asked_again(bench: Bench, simulator: LaunchdSimulator) -> None:
    simulator.failing["bootstrap"] = [Answer(37, "Bootstrap failed: 37: Operation already in progress")] * 3
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    assert manager.running(unit)


@pytest.mark.parametrize(
    ("verb", "answer", "message"),
    [
        ("bootstrap", Answer(122, "Bootstrap failed: 122: Path had bad ownership"), "bad ownership"),
        ("bootstrap", Answer(37, "Bootstrap failed: 37: Operation already in progress"), "37"),
        ("print", Answer(None, ""), "did not answer in time"),
        ("print", Answer(1, "Usage: launchctl print"), "ended with 1"),
    ],
)
def test_a_launchd_that_does_not_start_it_is_said(
    bench: Bench, simulator: LaunchdSimulator, verb: str, answer: Answer, message: str
) -> None:
    simulator.failing[verb] = [answer] * 10_000
    with pytest.raises(AgentError, match=message) as caught:
        bench.fresh().start(bench.unit(STAYS))
    assert caught.value.code is Code.START_FAILED


def test_no_answer_is_never_taken_for_stopped(bench: Bench, simulator: LaunchdSimulator) -> None:
    """Otherwise the folder would be exchanged below a running program."""
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    simulator.failing["print"] = [Answer(None, "")]
    with pytest.raises(AgentError) as caught:
        manager.stop(unit)
    assert caught.value.code is Code.STOP_FAILED
    assert manager.wanted("service")
    manager.stop(unit)
    assert processes(simulator) == 0


def test_what_survives_even_sigkill_fails_the_stop_and_stays_wanted(bench: Bench, simulator: LaunchdSimulator) -> None:
    unit = bench.unit("#!/bin/sh\ntrap '' TERM\necho up >> said\nwhile :; do sleep 0.05; done\n", timeout=0.2)
    manager = bench.fresh()
    manager.start(unit)
    wait_until(lambda: bench.lines() == ["up"], "it runs")
    simulator.deaf = True
    with pytest.raises(AgentError, match="still loaded 10 s after SIGKILL") as caught:
        manager.stop(unit)
    assert caught.value.code is Code.STOP_FAILED
    assert manager.wanted("service")


def test_what_launchd_itself_is_slow_to_force_is_forced_in_time(bench: Bench, simulator: LaunchdSimulator) -> None:
    """It counts whole seconds, and none means for ever."""
    unit = bench.unit("#!/bin/sh\ntrap '' TERM\necho up >> said\nwhile :; do sleep 0.05; done\n", timeout=0.2)
    manager = bench.fresh()
    manager.start(unit)
    wait_until(lambda: bench.lines() == ["up"], "it runs")
    simulator.jobs[LABEL].content["ExitTimeOut"] = 3600
    manager.stop(unit)
    assert simulator.jobs == {}


def test_a_bootout_that_fails_is_followed_by_force(bench: Bench, simulator: LaunchdSimulator) -> None:
    """And launchd may not start it again then: the job stays loaded, so the stop has failed, and says why."""
    simulator.throttle_seconds = 0
    unit, manager = bench.unit(STAYS, timeout=0.2), bench.fresh()
    manager.start(unit)
    simulator.failing["bootout"] = [Answer(1, "Boot-out failed: 1: Operation not permitted")]
    with pytest.raises(AgentError, match="not permitted"):
        manager.stop(unit)
    manager.stop(unit)
    assert processes(simulator) == 0


def run_through(bench: Bench) -> Unit:
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    manager.stop(unit)
    return unit


@pytest.mark.parametrize("then", ["start", "stop"])
def test_killed_before_any_call_the_next_agent_sees_what_should_run_and_brings_it_about(
    tmp_path: Path, then: str
) -> None:
    for at in itertools.count():
        folder = tmp_path / f"at-{at}"
        folder.mkdir()
        simulator = LaunchdSimulator(dying_at=at)
        bench = Bench(folder, ServiceKind.LAUNCHD, partial(launchd_on, folder, simulator, QuickClock()))
        try:
            run_through(bench)
        except Killed:
            pass
        else:
            assert at > 6
            break
        simulator.dying_at = None
        manager, unit = bench.fresh(), bench.started[0]
        # A program may run only if it is known that it should.
        assert manager.wanted("service") or processes(simulator) == 0, at
        if then == "start":
            manager.start(unit)
            assert manager.running(unit), at
            assert processes(simulator) == 1, at
        manager.stop(unit)
        assert (processes(simulator), plists(bench)) == (0, []), at
        simulator.power_off()


def test_a_damaged_register_entry_still_says_that_it_should_run(bench: Bench, simulator: LaunchdSimulator) -> None:
    unit, manager = bench.unit(STAYS), bench.fresh()
    manager.start(unit)
    (bench.folder / "run" / "service.launchd").write_bytes(b"\0" * 40)
    assert manager.wanted("service")
    bench.fresh().start(unit)
    assert processes(simulator) == 1
    bench.fresh().stop(unit)
    assert (processes(simulator), manager.wanted("service")) == (0, False)


def test_a_package_without_a_name_or_a_program_is_refused_with_what_is_missing(bench: Bench) -> None:
    unit = bench.unit(STAYS)
    for key, service in (
        ("service.name", replace(unit.service, name=None)),
        ("service.command", replace(unit.service, command=())),
        # launchd looks programs up in no PATH.
        ("expected a program in", replace(unit.service, command=("sh",))),
    ):
        with pytest.raises(AgentError, match=key):
            bench.fresh().start(replace(unit, service=service))


PRINTED = """\
system/com.commandit.service = {
	active count = 1
	path = /Library/LaunchDaemons/com.commandit.service.plist
	type = LaunchDaemon
	state = running

	program = /opt/commandit/service/bin/serve
	arguments = {
		/opt/commandit/service/bin/serve
		pid = 1
	}

	environment = {
		XPC_SERVICE_NAME => com.commandit.service
	}

	domain = system
	minimum runtime = 10
	exit timeout = 30
	runs = 4
	pid = 5121
	immediate reason = speculative
	forks = 0
	last exit code = 1

	spawn type = daemon (3)
}
"""


def test_only_the_outermost_level_of_print_counts() -> None:
    assert parse_print(PRINTED) == Job(pid=5121, runs=4, last_exit=1)
    assert parse_print(PRINTED.replace("\tpid = 5121\n", "").replace("code = 1", "code = (never exited)")) == Job(
        None, 4, None
    )


def test_a_program_that_a_signal_ends_at_once_was_started_and_has_ended(
    bench: Bench, simulator: LaunchdSimulator
) -> None:
    """That is said in another line than an exit code; else launchd would be waited for, and told to start it again."""
    said = "\truns = 1\n\tlast terminating signal = Killed: 9\n}"
    assert parse_print(said) == Job(None, 1, 137)
    simulator.failing["print"] = [Answer(113, "Could not find service"), Answer(0, said)]
    unit, manager = bench.unit("#!/bin/sh\nkill -9 $$\n"), bench.fresh()
    manager.start(unit)
    assert not any(call[0] == "kickstart" for call in simulator.calls)
    wait_until(lambda: not bench.fresh().running(unit), "it ended")
    assert simulator.jobs[LABEL].last_exit == -9
    manager.stop(unit)


def test_the_real_command_is_run_to_its_end_within_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command's path is the one thing that is exchanged here."""
    command = tmp_path / "launchctl"
    command.write_text('#!/bin/sh\ncase $1 in hang) exec sleep 60;; esac\necho "$@"; env >&2; exit 113\n')
    command.chmod(0o755)
    monkeypatch.setattr("agent.platform.launchctl.LAUNCHCTL", str(command))
    answer = launchctl(["print", "system/x"], 10.0)
    assert answer.exit_code == 113
    assert answer.output.splitlines()[0] == "print system/x"
    assert not any(name in answer.output for name in itertools.chain(["HOME="], set(os.environ) - {"PWD", "_"}))
    began = time.monotonic()
    assert launchctl(["hang"], 0.2) == Answer(None, "")
    assert time.monotonic() - began < 10


def test_on_another_system_the_missing_command_is_said(bench: Bench, tmp_path: Path) -> None:
    def missing(arguments: object, timeout: float) -> Answer:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(AgentError, match="expected macOS"):
        launchd_on(tmp_path, missing).start(bench.unit(STAYS))  # type: ignore[arg-type]
