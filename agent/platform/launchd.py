"""Components as launchd daemons (FR-CMP-001, FR-CMP-004).

A property list lies in the folder of the daemons exactly while its component should run: launchd starts all that lie
there at boot, and a component that was stopped for an update must not come up from a half-exchanged folder.
"""

from __future__ import annotations

import math
import plistlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.codes import Code
from agent.durable import replace_file
from agent.errors import AgentError
from agent.platform.launchctl import CANNOT_SPAWN, IN_PROGRESS, NOT_LOADED, Answer, Job, Launchctl, parse_print
from agent.platform.outputs import Outputs
from agent.platform.register import Register, remove_durably, service_command, service_name
from agent.ports import Clock, Unit
from repo_server.core.package import ServiceKind

DAEMONS = Path("Library") / "LaunchDaemons"
"""Below the root folder."""
COMPONENT_VARIABLE = "COMMANDIT_COMPONENT"
ANSWER_SECONDS = 30.0
START_SECONDS = 15.0
"""How long launchd may take to start a program that it has been told to start."""
FORCE_SECONDS = 10.0
PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Launchd:
    """What a manager works with."""

    daemons: Path
    """``/Library/LaunchDaemons``."""
    launchctl: Launchctl
    clock: Clock
    environment: Mapping[str, str]


class LaunchdManager:
    """The ``ServiceManager`` port for ``service.kind = "launchd"``.

    launchd starts a program again that has ended. For the process that started it, it has ended all the same: else
    nobody would notice a version that crashes every minute (probation).
    """

    def __init__(self, run_folder: Path, launchd: Launchd) -> None:
        self._launchd = launchd
        self._register = Register(run_folder, "launchd")
        self._outputs = Outputs(run_folder)
        self._launched: dict[str, int | None] = {}
        """The process of each launch that is ours; ``None``: it had ended before it could be seen."""

    def start(self, unit: Unit) -> None:
        """Write the property list, then load it; launchd starts it at once, and at each boot."""
        label, command = service_name(unit), service_command(unit)
        before = self._register.name_of(unit.component)
        if before is not None and before != label:
            self._end(before, unit)
        job = self._job(label, Code.START_FAILED)
        if job is not None and job.pid is not None and before == label:
            self._launched[unit.component] = job.pid
            return
        if job is not None:
            # Loaded from an earlier property list, or by somebody else.
            self._end(label, unit)
        log = self._outputs.prepare(unit.component)
        self._register.enter(unit.component, label)
        self._write(unit, label, command, log)
        # Someone may have disabled it; that is remembered by label, over boots and installations.
        self._tell("enable", _target(label))
        self._load(unit, label)
        self._launched[unit.component] = self._until_started(unit, label)

    def stop(self, unit: Unit) -> None:
        """Unload it: launchd sends SIGTERM, and SIGKILL to its whole group after ``stop_timeout_seconds``."""
        labels = {self._register.name_of(unit.component)}
        if unit.service.kind is ServiceKind.LAUNCHD:
            labels.add(unit.service.name)
        for label in labels - {None}:
            self._end(str(label), unit)
        self._launched.pop(unit.component, None)
        self._register.strike(unit.component)

    def remove(self, unit: Unit) -> None:
        """Stop it; nothing of it stays."""
        self.stop(unit)

    def running(self, unit: Unit) -> bool:
        """Whether its process is there, and still that of the launch that is ours."""
        label = self._register.name_of(unit.component)
        if label is None:
            return False
        job = self._job(label, Code.START_FAILED)
        if job is None or job.pid is None:
            return False
        return self._launched.get(unit.component, job.pid) == job.pid

    def wanted(self, component: str) -> bool:
        """Whether it was started and not stopped since."""
        return self._register.holds(component)

    def last_output(self, component: str) -> str:
        """Return the end of its log."""
        return self._outputs.last(component)

    def _write(self, unit: Unit, label: str, command: list[str], log: Path) -> None:
        content = {
            "Label": label,
            "ProgramArguments": command,
            "WorkingDirectory": str(unit.folder),
            "EnvironmentVariables": {**self._launchd.environment, COMPONENT_VARIABLE: unit.component},
            "StandardOutPath": str(log),
            "StandardErrorPath": str(log),
            "RunAtLoad": True,
            "KeepAlive": True,
            # 0 would mean: for ever.
            "ExitTimeOut": max(1, math.ceil(unit.service.stop_timeout_seconds)),
            "Umask": 0o022,
        }
        replace_file(self._plist(label), plistlib.dumps(content), 0o644)

    def _load(self, unit: Unit, label: str) -> None:
        deadline = self._launchd.clock.monotonic() + START_SECONDS
        while True:
            answer = self._tell("bootstrap", "system", str(self._plist(label)))
            if answer.exit_code == 0 or self._job(label, Code.START_FAILED) is not None:
                return
            if answer.exit_code not in IN_PROGRESS or self._launchd.clock.monotonic() >= deadline:
                raise AgentError(
                    Code.START_FAILED,
                    f"{unit.component}: launchd does not load {self._plist(label)}: {answer}; "
                    "expected exit code 0, see the system's log",
                )
            self._launchd.clock.sleep(PAUSE)

    def _until_started(self, unit: Unit, label: str) -> int | None:
        deadline = self._launchd.clock.monotonic() + START_SECONDS
        kicked = False
        while True:
            job = self._job(label, Code.START_FAILED)
            if job is not None and job.pid is not None:
                return job.pid
            if job is not None and job.last_exit is not None and job.last_exit != CANNOT_SPAWN:
                return None
            if job is None or job.last_exit is not None or self._launchd.clock.monotonic() >= deadline:
                raise AgentError(
                    Code.START_FAILED,
                    f"{unit.component}: launchd cannot start {unit.service.command[0]} ({job}); expected an "
                    f"executable program in {unit.folder}, see launchctl print {_target(label)}",
                )
            if not kicked:
                self._tell("kickstart", _target(label))
                kicked = True
            self._launchd.clock.sleep(PAUSE)

    def _end(self, label: str, unit: Unit) -> None:
        """Unload a service, wait until nothing of it runs, and take it out of the next boot."""
        limit = unit.service.stop_timeout_seconds
        answer = None
        if self._job(label, Code.STOP_FAILED) is not None:
            deadline = self._launchd.clock.monotonic() + limit
            answer = self._tell("bootout", _target(label), timeout=limit + ANSWER_SECONDS)
            if not self._gone(label, deadline):
                self._tell("kill", "SIGKILL", _target(label))
                if not self._gone(label, self._launchd.clock.monotonic() + FORCE_SECONDS):
                    raise AgentError(
                        Code.STOP_FAILED,
                        f"{unit.component}: {_target(label)} is still loaded {FORCE_SECONDS:.0f} s after SIGKILL "
                        f"({answer}); see launchctl print {_target(label)}",
                    )
        remove_durably(self._plist(label))

    def _gone(self, label: str, deadline: float) -> bool:
        while self._job(label, Code.STOP_FAILED) is not None:
            if self._launchd.clock.monotonic() >= deadline:
                return False
            self._launchd.clock.sleep(PAUSE)
        return True

    def _job(self, label: str, code: Code) -> Job | None:
        """Return what launchd says of a label, ``None`` if it is not loaded; no answer is never taken for that."""
        answer = self._tell("print", _target(label))
        if answer.exit_code == 0:
            return parse_print(answer.output)
        if answer.exit_code in NOT_LOADED:
            return None
        raise AgentError(code, f"cannot find out whether {label} runs: {answer}; expected exit code 0 or 113")

    def _tell(self, *arguments: str, timeout: float = ANSWER_SECONDS) -> Answer:
        try:
            return self._launchd.launchctl(arguments, timeout)
        except OSError as error:
            raise AgentError(
                Code.NOT_SUPPORTED, f"launchctl cannot be run: {error.strerror}; expected macOS"
            ) from error

    def _plist(self, label: str) -> Path:
        return self._launchd.daemons / f"{label}.plist"


def _target(label: str) -> str:
    return f"system/{label}"
