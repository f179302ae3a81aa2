"""systemd as ``systemctl`` and ``journalctl`` show it: reads unit files, keeps its units, really starts their programs.

The port ``Programs``. Faults: ``failing[verb]`` answers instead, ``dying_at`` kills the agent before the n-th call,
``silent`` answers nothing at all. The real systemd is in tests/e2e/test_systemd_components.py.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.ports import Finished

FAILED = "Job for {name} failed because the control process exited with error code."


class Killed(BaseException):
    """The agent was killed here."""


@dataclass
class SimulatedUnit:
    """A unit that systemd has loaded."""

    settings: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    group: int | None = None
    """Of the processes that the last start began, also when the first of them has ended."""
    invocation: str = ""
    conditions: str = "yes"
    kill_at: float | None = None


@dataclass
class SystemdSimulator:
    """One systemd with its folder of units."""

    folder: Path
    units: dict[str, SimulatedUnit] = field(default_factory=dict)
    enabled: set[str] = field(default_factory=set)
    journal: list[tuple[str, str]] = field(default_factory=list)
    failing: dict[str, Finished] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    """Units of the distribution: name → path."""
    dying_at: int | None = None
    silent: bool = False
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, command: Sequence[str], folder: Path, facts: dict[str, str], timeout: float) -> Finished:  # noqa: ARG002 -- the port's
        """Answer as the two programs do."""
        assert timeout > 0
        if self.dying_at is not None and len(self.calls) >= self.dying_at:
            raise Killed
        verb, *rest = [word for word in command[1:] if not word.startswith("--") or word.startswith("--unit")]
        self.calls.append((command[0], verb, *rest))
        if self.silent:
            return Finished(1, "Failed to connect to bus: Host is down")
        self._catch_up()
        if command[0] == "journalctl":
            name = verb.partition("=")[2]
            return Finished(0, "\n".join(text for unit, text in self.journal if unit == name))
        if verb in self.failing:
            return self.failing[verb]
        if verb == "stop":
            return self._stop(rest[0], timeout)
        verbs: dict[str, Callable[..., Finished]] = {
            "daemon-reload": self._reload, "enable": self._enable, "disable": self._disable, "show": self._show,
            "start": self._start, "kill": self._kill, "reset-failed": lambda _: Finished(0, ""),
        }  # fmt: skip
        return verbs[verb](*rest)

    def power_off(self) -> None:
        """End everything at once; the folder of units stays."""
        for unit in self.units.values():
            _signal(unit, signal.SIGKILL)
            if unit.process is not None:
                unit.process.wait()
        self.units.clear()

    def boot(self) -> None:
        """Load the units, and start those that are enabled."""
        self._reload()
        for name in sorted(self.enabled):
            self._start(name)

    def _reload(self) -> Finished:
        there = {path.name: _parsed(path) for path in self.folder.glob("*.service")}
        for name, settings in there.items():
            self.units.setdefault(name, SimulatedUnit(settings)).settings = settings
        for name in [name for name, unit in self.units.items() if name not in there and unit.process is None]:
            del self.units[name]
        return Finished(0, "")

    def _enable(self, name: str) -> Finished:
        if not (self.folder / name).exists():
            return Finished(1, f"Failed to enable unit: Unit file {name} does not exist.")
        self.enabled.add(name)
        return Finished(0, "")

    def _disable(self, name: str) -> Finished:
        self.enabled.discard(name)
        return Finished(0, "")

    def _start(self, name: str) -> Finished:
        unit = self.units.get(name)
        if unit is None:
            return Finished(5, f"Failed to start {name}: Unit {name} not found.")
        if unit.process is not None and unit.process.poll() is None:
            return Finished(0, "")
        unit.conditions = "yes" if _holds(unit.settings["ConditionPathExists"]) else "no"
        if unit.conditions == "no":
            return Finished(0, "")
        command = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(unit.settings["ExecStart"])]
        try:
            unit.process = subprocess.Popen(
                command, cwd=unit.settings["WorkingDirectory"], stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            self.journal.append((name, f"Failed to locate executable {command[0]}: {error.strerror}"))
            return Finished(1, FAILED.format(name=name))
        unit.group, unit.invocation, unit.kill_at = unit.process.pid, uuid.uuid4().hex, None
        return Finished(0, "")

    def _stop(self, name: str, timeout: float) -> Finished:
        unit = self.units.get(name)
        if unit is None:
            return Finished(5, f"Failed to stop {name}: Unit {name} not loaded.")
        _signal(unit, signal.SIGTERM)
        unit.kill_at = time.monotonic() + int(unit.settings["TimeoutStopSec"].removesuffix("ms")) / 1000
        end = time.monotonic() + timeout
        while unit.process is not None:
            if time.monotonic() >= end:
                return Finished(None, "")
            time.sleep(0.01)
            self._catch_up()
        return Finished(0, "")

    def _kill(self, name: str) -> Finished:
        unit = self.units.get(name)
        if unit is None or unit.group is None:
            return Finished(1, f"Failed to kill unit {name}: Unit {name} not loaded.")
        _signal(unit, signal.SIGKILL)
        return Finished(0, "")

    def _show(self, name: str) -> Finished:
        unit = self.units.get(name)
        loaded = (self.folder / name).exists() and unit is not None
        fragment = str(self.folder / name) if loaded else self.foreign.get(name, "")
        active, sub = _state(unit)
        lines = {
            "ActiveState": active,
            "SubState": sub,
            "FragmentPath": fragment,
            "InvocationID": unit.invocation if unit else "",
            "ControlGroup": "",
            "ConditionResult": unit.conditions if unit else "no",
        }
        return Finished(0, "\n".join(f"{key}={value}" for key, value in lines.items()))

    def _catch_up(self) -> None:
        for unit in self.units.values():
            if unit.kill_at is not None and unit.process is not None and time.monotonic() >= unit.kill_at:
                _signal(unit, signal.SIGKILL)
            if unit.process is not None and unit.process.poll() is not None and unit.kill_at is not None:
                unit.process, unit.kill_at = None, None


def _state(unit: SimulatedUnit | None) -> tuple[str, str]:
    if unit is None or unit.process is None:
        return "inactive", "dead"
    if unit.process.poll() is not None:
        return "activating", "auto-restart"
    return ("active", "running") if unit.kill_at is None else ("deactivating", "stop-sigterm")


def _parsed(path: Path) -> dict[str, str]:
    """Read settings; of those that stand twice the last counts, but conditions are kept all."""
    found: dict[str, str] = {"ConditionPathExists": "", "WorkingDirectory": "/"}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key] = f"{found[key]} {value}" if key == "ConditionPathExists" else value
    return found


def _holds(conditions: str) -> bool:
    triggers = [condition.removeprefix("|") for condition in conditions.split()]
    return not triggers or any(
        not Path(one[1:]).exists() if one.startswith("!") else Path(one).exists() for one in triggers
    )


def _signal(unit: SimulatedUnit, number: signal.Signals) -> None:
    if unit.group is not None:
        with suppress(ProcessLookupError):
            os.killpg(unit.group, number)
