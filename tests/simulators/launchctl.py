"""launchd as ``launchctl`` shows it: reads property lists, keeps its jobs, and really starts their programs.

Faults: ``failing[verb]`` answers instead, ``dying_at`` kills the agent before the n-th call, ``deaf`` jobs survive
SIGKILL. Messages and exit codes are those of launchctl(1) on macOS 13.
"""

from __future__ import annotations

import os
import plistlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.platform.launchctl import Answer

NOT_FOUND = Answer(113, "Could not find service in domain for system")


class Killed(BaseException):
    """The agent was killed here."""


@dataclass
class SimulatedJob:
    """A loaded service."""

    content: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    runs: int = 0
    last_exit: int | None = None
    """Negative: the signal that ended it."""
    ended_at: float = 0.0
    kill_at: float | None = None
    """Being unloaded: when launchd sends SIGKILL."""


@dataclass
class LaunchdSimulator:
    """The ``Launchctl`` port. ``throttle_seconds``: how long an ended program waits before it is started again."""

    throttle_seconds: float = 10.0
    jobs: dict[str, SimulatedJob] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    failing: dict[str, list[Answer]] = field(default_factory=dict)
    deaf: bool = False
    dying_at: int | None = None
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, arguments: Sequence[str], timeout: float) -> Answer:
        """Answer as ``launchctl`` does."""
        if self.dying_at is not None and len(self.calls) >= self.dying_at:
            raise Killed
        assert timeout > 0
        self.calls.append(tuple(arguments))
        self._catch_up()
        verb, *rest = arguments
        if self.failing.get(verb):
            return self.failing[verb].pop(0)
        verbs: dict[str, Callable[..., Answer]] = {
            "print": self._print, "enable": self._enable, "bootstrap": self._bootstrap, "bootout": self._bootout,
            "kickstart": self._kickstart, "kill": self._kill,
        }  # fmt: skip
        return verbs[verb](*rest)

    def boot(self, daemons: Path) -> None:
        """Cut the power and start again: launchd loads what lies in the folder of the daemons."""
        self.power_off()
        for plist in sorted(daemons.glob("*.plist")):
            self._bootstrap("system", str(plist))

    def power_off(self) -> None:
        """End everything at once."""
        for job in self.jobs.values():
            _signal(job, signal.SIGKILL)
            if job.process is not None:
                job.process.wait()
        self.jobs.clear()

    def _print(self, target: str) -> Answer:
        job = self.jobs.get(_label(target))
        if job is None:
            return NOT_FOUND
        lines = [
            f"{target} = {{",
            f"\tactive count = {int(job.process is not None)}",
            f"\tstate = {'running' if job.process else 'not running'}",
            "\targuments = {",
            *(f"\t\t{argument}" for argument in job.content["ProgramArguments"]),
            "\t}",
            "\tenvironment = {",
            *(f"\t\t{name} => {value}" for name, value in job.content.get("EnvironmentVariables", {}).items()),
            "\t\tpid = 1",
            "\t}",
            f"\truns = {job.runs}",
            *([f"\tpid = {job.process.pid}"] if job.process is not None else []),
            _last_end(job),
            "}",
        ]
        return Answer(0, "\n".join(lines))

    def _enable(self, target: str) -> Answer:
        self.disabled.discard(_label(target))
        return Answer(0, "")

    def _bootstrap(self, domain: str, plist: str) -> Answer:
        assert domain == "system"
        path = Path(plist)
        content = plistlib.loads(path.read_bytes())
        label = content["Label"]
        if path.stat().st_mode & 0o022:
            return Answer(122, "Bootstrap failed: 122: Path had bad ownership/permissions")
        if label in self.disabled:
            return Answer(119, "Bootstrap failed: 119: Service is disabled")
        if label in self.jobs:
            return Answer(5, "Bootstrap failed: 5: Input/output error")
        self.jobs[label] = SimulatedJob(content)
        if content.get("RunAtLoad"):
            self._spawn(self.jobs[label])
        return Answer(0, "")

    def _bootout(self, target: str) -> Answer:
        job = self.jobs.get(_label(target))
        if job is None:
            return Answer(3, "Boot-out failed: 3: No such process")
        if job.process is None:
            del self.jobs[_label(target)]
            return Answer(0, "")
        if job.kill_at is None:
            job.kill_at = time.monotonic() + job.content.get("ExitTimeOut", 20)
            with suppress(ProcessLookupError):
                os.kill(job.process.pid, signal.SIGTERM)
        return Answer(36, "Boot-out failed: 36: Operation now in progress")

    def _kickstart(self, target: str) -> Answer:
        job = self.jobs.get(_label(target))
        if job is None:
            return NOT_FOUND
        if job.process is not None:
            return Answer(37, "Could not kickstart service: 37: Operation already in progress")
        self._spawn(job)
        return Answer(0, "")

    def _kill(self, name: str, target: str) -> Answer:
        job = self.jobs.get(_label(target))
        if job is None:
            return NOT_FOUND
        if not self.deaf:
            _signal(job, getattr(signal, name))
        return Answer(0, "")

    def _spawn(self, job: SimulatedJob) -> None:
        content = job.content
        job.runs += 1
        try:
            with (
                Path(content["StandardOutPath"]).open("ab") as out,
                Path(content["StandardErrorPath"]).open("ab") as err,
            ):
                job.process = subprocess.Popen(
                    content["ProgramArguments"], cwd=content.get("WorkingDirectory", "/"),
                    env=content.get("EnvironmentVariables", {}),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, umask=content["Umask"],
                )  # fmt: skip
        except OSError:
            job.last_exit = 78

    def _catch_up(self) -> None:
        """Do what launchd does by itself: note ends, end groups, force, start again."""
        now = time.monotonic()
        for label, job in list(self.jobs.items()):
            if job.kill_at is not None and now >= job.kill_at and not self.deaf:
                _signal(job, signal.SIGKILL)
            if job.process is not None and job.process.poll() is not None:
                with suppress(ProcessLookupError):
                    os.killpg(job.process.pid, signal.SIGKILL)
                job.last_exit, job.process, job.ended_at = job.process.returncode, None, now
            if job.process is None and job.kill_at is not None:
                del self.jobs[label]
            elif job.process is None and job.last_exit != 78 and now >= job.ended_at + self._pause(job):
                self._spawn(job)

    def _pause(self, job: SimulatedJob) -> float:
        """Return how long after its end a job is started again."""
        if job.content.get("KeepAlive"):
            return self.throttle_seconds
        return float(job.content.get("StartInterval", float("inf")))


def _signal(job: SimulatedJob, number: signal.Signals) -> None:
    if job.process is not None and job.process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(job.process.pid, number)


def _last_end(job: SimulatedJob) -> str:
    if job.last_exit is not None and job.last_exit < 0:
        return f"\tlast terminating signal = {signal.strsignal(-job.last_exit)}: {-job.last_exit}"
    return f"\tlast exit code = {'(never exited)' if job.last_exit is None else job.last_exit}"


def _label(target: str) -> str:
    domain, _, label = target.partition("/")
    assert domain == "system"
    return label
