"""Components as systemd services: the ``ServiceManager`` port for ``service.kind = "systemd"`` (L43, FR-CMP-001).

The unit file comes from the install folder, so it always is that of the version in place: starting the old version
brings back the old unit. Its first line says whose it is, and that line is the only record: a component is wanted as
long as such a file is there. ``start`` writes it before anything else, ``stop`` removes it after everything else.
A file of anybody else is never touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.codes import Code
from agent.durable import replace_file, sync_folder
from agent.errors import AgentError, as_local_failure
from agent.platform.cgroup import members
from agent.platform.unitfile import SUFFIX, unit_name, unit_text, written_for
from agent.ports import Clock, Finished, Programs, Unit
from repo_server.core.package import ServiceKind

CALL_SECONDS = 30.0
START_SECONDS = 120.0
"""How long ``systemctl start`` may wait for a unit that reports when it is ready."""
FORCE_SECONDS = 10.0
"""How long a killed service may take to be gone before stopping counts as failed."""
PAUSE_SECONDS = 0.1
_UP = frozenset({"active", "reloading", "activating", "deactivating", "refreshing"})
_WAITS_FOR_RESTART = frozenset({"auto-restart", "auto-restart-queued"})
_PROPERTIES = ("ActiveState", "SubState", "FragmentPath", "InvocationID", "ControlGroup", "ConditionResult")
_JOURNALCTL = ("journalctl", "--no-pager", "--quiet", "--output=cat")
_PUBLIC_FILE = 0o644


@dataclass(frozen=True, slots=True)
class SystemdPlaces:
    """Where systemd and the agent keep what both look at."""

    journal: Path
    """The agent's; while it is there, an update is under way."""
    units: Path = Path("/etc/systemd/system")
    started: Path = Path("/run/commandit/started")
    """One empty file for each component that the agent started in this boot."""


@dataclass(frozen=True, slots=True)
class _State:
    """What systemd says of a unit."""

    active: str
    sub: str
    fragment: str
    """Path of the unit file in force, "" if there is none."""
    invocation: str
    """A new one for each start."""
    group: str
    """Path of its control group, "" while it has none."""
    conditions: str
    """``no``: systemd did not start it, for a condition of the unit does not hold."""

    @property
    def is_up(self) -> bool:
        """Whether anything of it may be at work, or come back by itself."""
        return self.active in _UP

    @property
    def is_running(self) -> bool:
        return self.is_up and self.active != "deactivating" and self.sub not in _WAITS_FOR_RESTART


class SystemdManager:
    """Drives systemd by ``systemctl``. What it remembers serves messages and probation only."""

    def __init__(self, places: SystemdPlaces, programs: Programs, clock: Clock) -> None:
        self._places = places
        self._programs = programs
        self._clock = clock
        self._launched: dict[str, tuple[str, str]] = {}
        """Component → unit and invocation of our own last start."""

    def start(self, unit: Unit) -> None:
        """Install the unit durably, enable it for the next boot, and start it; a running one stays as it is."""
        name = unit_name(unit)
        path = self._places.units / name
        text = unit_text(unit, self._places.journal, self._marker(unit.component))
        self._must_be_free(name, unit.component)
        with as_local_failure(f"write {path}"):
            if not path.exists() or path.read_bytes() != text:
                replace_file(path, text, _PUBLIC_FILE)
            self._allow(unit.component)
        for other in self._units_of(unit.component):
            if other != name:
                self._stop(other, unit)
                self._remove(other)
        self._must(unit, "daemon-reload")
        self._must(unit, "enable", name)
        self._sync_links()
        self._call("reset-failed", name)
        started = self._call("start", name, timeout=START_SECONDS)
        if started.exit_code != 0:
            raise self._start_failed(unit, f"cannot start {name}: {_in_words(started)}; {self._journal(name)}")
        state = self._show(name)
        if state is not None and state.conditions == "no":
            raise self._start_failed(
                unit, f"{name} has a condition that does not hold here, see systemctl status {name}"
            )
        self._launched[unit.component] = (name, "" if state is None else state.invocation)

    def stop(self, unit: Unit) -> None:
        """Stop every unit of the component, then take it out of systemd; return only when nothing of it runs."""
        names = self._units_of(unit.component)
        if unit.service.kind is ServiceKind.SYSTEMD and (lost := self._lost(unit)) is not None:
            names.append(lost)
        for name in names:
            self._stop(name, unit)
        for name in names:
            self._remove(name)
        if names:
            self._sync_links()
            self._call("daemon-reload")
        self._marker(unit.component).unlink(missing_ok=True)

    def remove(self, unit: Unit) -> None:
        """Stop it; nothing of it stays."""
        self.stop(unit)

    def running(self, unit: Unit) -> bool:
        """Whether its service runs; one that this manager started must not have been restarted since."""
        try:
            name = unit_name(unit)
            state = self._show(name) if name in self._units_of(unit.component) else None
        except AgentError:
            return False
        if state is None or not state.is_running:
            return False
        with contextlib.suppress(OSError):
            # Seen at work in this boot: systemd may start it again also while an update is under way.
            self._allow(unit.component)
        launched = self._launched.get(unit.component)
        return launched is None or launched == (name, state.invocation)

    def wanted(self, component: str) -> bool:
        """Whether it was started and never stopped since: its unit file is there."""
        return bool(self._units_of(component))

    def last_output(self, component: str) -> str:
        """Return what its service wrote last, since our own start if there was one."""
        name, invocation = self._launched.get(component, ("", ""))
        names = [name] if name else self._units_of(component)
        if not names:
            return ""
        since = [f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else []
        said = self._run([*_JOURNALCTL, "--lines=20", f"_SYSTEMD_UNIT={names[0]}", *since])
        return said.output if said.exit_code == 0 else ""

    def _stop(self, name: str, unit: Unit) -> None:
        """Ask, wait for the package's time, kill; raise ``AgentError(STOP_FAILED)``."""
        before, timeout = self._show(name), unit.service.stop_timeout_seconds
        asked = self._call("stop", name, timeout=max(timeout, PAUSE_SECONDS))
        deadline = self._clock.monotonic() + FORCE_SECONDS
        while True:
            # Also after a good stop: a unit with KillMode=process leaves others behind.
            self._call("kill", "--signal=SIGKILL", name)
            state = self._show(name)
            if state is not None and not state.is_up and (before is None or not members(before.group)):
                return
            if self._clock.monotonic() >= deadline:
                found = "systemd does not answer" if state is None else f"{state.active} ({state.sub})"
                raise AgentError(
                    Code.STOP_FAILED,
                    f"{unit.component}: {name} is not stopped {FORCE_SECONDS:.0f} s after SIGKILL; {found}: "
                    f"{asked.output[-300:]}. See systemctl status {name}",
                )
            self._clock.sleep(PAUSE_SECONDS)

    def _remove(self, name: str) -> None:
        # Links first: with the file they would make it start at the next boot.
        self._call("disable", name)
        path = self._places.units / name
        with as_local_failure(f"remove {path}"):
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        self._call("reset-failed", name)

    def _lost(self, unit: Unit) -> str | None:
        """Return the unit's name if it still runs although somebody removed its file."""
        name = unit_name(unit)
        path = self._places.units / name
        state = None if path.exists() else self._show(name)
        return name if state is not None and state.is_up and state.fragment in {"", str(path)} else None

    def _must_be_free(self, name: str, component: str) -> None:
        path = self._places.units / name
        with as_local_failure(f"read {path}"):
            is_there = path.is_symlink() or path.exists()
            if is_there and written_for(path, component):
                return
        state = self._show(name)
        elsewhere = state.fragment if state is not None else ""
        if is_there or elsewhere not in {"", str(path)}:
            raise AgentError(
                Code.START_FAILED,
                f"{component}: there is a unit {elsewhere or path} that the agent did not write; it is left alone. "
                f"Remove or unmask {name}, or pack the component with another service.name",
            )

    def _units_of(self, component: str) -> list[str]:
        found = []
        with as_local_failure(f"look into {self._places.units}"):
            for path in sorted(self._places.units.glob(f"*{SUFFIX}")):
                with contextlib.suppress(FileNotFoundError):
                    if written_for(path, component):
                        found.append(path.name)
        return found

    def _sync_links(self) -> None:
        with as_local_failure(f"flush {self._places.units}"):
            for folder in self._places.units.glob("*.*/"):
                sync_folder(folder)
            sync_folder(self._places.units)

    def _allow(self, component: str) -> None:
        marker = self._marker(component)
        marker.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        marker.touch()

    def _marker(self, component: str) -> Path:
        return self._places.started / component

    def _show(self, name: str) -> _State | None:
        """Return what systemd says, ``None`` if it does not answer."""
        said = self._call("show", f"--property={','.join(_PROPERTIES)}", name)
        pairs = dict(line.partition("=")[::2] for line in said.output.splitlines())
        if said.exit_code != 0 or "ActiveState" not in pairs:
            return None
        return _State(*(pairs.get(key, "") for key in _PROPERTIES))

    def _must(self, unit: Unit, verb: str, *arguments: str) -> None:
        done = self._call(verb, *arguments)
        if done.exit_code != 0:
            raise self._start_failed(unit, f"systemctl {' '.join((verb, *arguments))}: {_in_words(done)}")

    def _journal(self, name: str) -> str:
        """Return what systemd itself said of a unit, in one line."""
        said = self._run([*_JOURNALCTL, "--lines=5", f"--unit={name}"])
        return "; ".join(said.output.splitlines())[-400:]

    def _start_failed(self, unit: Unit, why: str) -> AgentError:
        return AgentError(Code.START_FAILED, f"{unit.component}: {why}")

    def _call(self, verb: str, *arguments: str, timeout: float = CALL_SECONDS) -> Finished:
        return self._run(["systemctl", "--no-ask-password", "--no-pager", "--quiet", verb, *arguments], timeout)

    def _run(self, command: Sequence[str], timeout: float = CALL_SECONDS) -> Finished:
        try:
            return self._programs.run(command, Path("/"), {}, timeout)
        except OSError as error:
            return Finished(127, f"cannot start {command[0]}: {error.strerror}; expected a machine that systemd runs")


def _in_words(done: Finished) -> str:
    if done.exit_code is None:
        return "it took too long"
    return f"it ended with {done.exit_code}, {'; '.join(done.output.splitlines())[-300:]}"
