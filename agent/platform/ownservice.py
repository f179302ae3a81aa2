"""The agent itself as a service of systemd: resident, or by a timer (FR-BST-002)."""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.codes import Code
from agent.durable import replace_file, sync_folder
from agent.errors import AgentError, local_failure
from agent.platform.unitfile import quoted
from agent.ports import Finished, Programs

RECOVER = "commandit-updater-recover.service"
DAEMON = "commandit-updater.service"
TIMER = "commandit-updater.timer"
ONCE = "commandit-updater-once.service"
NOW_SOCKET = "commandit-updater-now.socket"
NOW = "commandit-updater-now@.service"
CALL_SECONDS = 120.0
SHORTEST_PAUSE, LONGEST_PAUSE = 60, 900
"""Seconds between two looks whether a check is due: what the server said, or a backoff, moves the check itself."""
BOOTED = Path("/run/systemd/system")
"""It is there exactly on machines that systemd runs (sd_booted(3))."""
_SHIPPED_PROGRAM = "/opt/commandit/updater/bin/commandit-updater"
_PACKAGE = Path(__file__).resolve().parent.parent


class RunAs(enum.StrEnum):
    """How the agent runs on a machine."""

    DAEMON = "daemon"
    """Resident."""
    TIMER = "timer"
    """Started for each check; between checks nothing of it is in memory."""
    NONE = "none"
    """Not at all by itself."""


_FILES: Mapping[RunAs, tuple[str, ...]] = {
    RunAs.DAEMON: (RECOVER, DAEMON),
    RunAs.TIMER: (RECOVER, ONCE, TIMER, NOW, NOW_SOCKET),
    RunAs.NONE: (),
}
_STARTED: Mapping[RunAs, tuple[str, ...]] = {RunAs.DAEMON: (DAEMON,), RunAs.TIMER: (TIMER, NOW_SOCKET), RunAs.NONE: ()}
_ALL = (NOW_SOCKET, NOW, TIMER, DAEMON, ONCE, RECOVER)


@dataclass(frozen=True, slots=True)
class OwnService:
    """Puts the agent's units in place, and takes them out. Idempotent; a killed one is repeated."""

    programs: Programs
    command: Sequence[str]
    """How the agent is started."""
    units: Path = Path("/etc/systemd/system")
    within: str = ""
    """The control groups of this process: it does not stop the unit that it runs in, for that would cut it off."""

    def current(self) -> RunAs:
        """Return how the agent is registered now."""
        if (self.units / TIMER).exists():
            return RunAs.TIMER
        return RunAs.DAEMON if (self.units / DAEMON).exists() else RunAs.NONE

    def register(self, run_as: RunAs, interval_seconds: int) -> None:
        """Make the agent run so from now on and at each boot; ``NONE`` takes it out.

        Raises ``AgentError(START_FAILED)``, ``LocalFailure``.
        """
        wanted = _FILES[run_as]
        gone = [name for name in _ALL if name not in wanted and (self.units / name).exists()]
        for name in (one for one in gone if one != NOW):
            self._call("disable", *([] if f"/{name}" in self.within else ["--now"]), name)
        changed = [name for name in wanted if self._write(name, interval_seconds)]
        self._remove(gone)
        if gone or changed:
            self._must("daemon-reload")
        if RECOVER in wanted:
            self._must("enable", RECOVER)
        for name in _STARTED[run_as]:
            self._must("enable", name)
            self._must("restart" if name in changed else "start", name)

    def refresh(self, interval_seconds: int) -> bool:
        """Write the units that are registered as this version writes them. Idempotent; raises as ``register`` does."""
        changed = [name for name in _FILES[self.current()] if self._write(name, interval_seconds)]
        if changed:
            self._must("daemon-reload")
        return bool(changed)

    def _write(self, name: str, interval_seconds: int) -> bool:
        path = self.units / name
        data = self._text(name, interval_seconds).encode()
        try:
            if path.is_symlink():
                raise AgentError(
                    Code.START_FAILED,
                    f"{path} is a link, so somebody masked the agent; expected to write a file. "
                    f"Run: systemctl unmask {name}",
                )
            if path.exists() and path.read_bytes() == data:
                return False
        except OSError as error:
            raise local_failure(error, f"read {path}") from error
        replace_file(path, data, 0o644)
        return True

    def _text(self, name: str, interval_seconds: int) -> str:
        text = shipped(name)
        command = " ".join(quoted(word) for word in self.command)
        text = text.replace(f"ExecStart={_SHIPPED_PROGRAM} ", f"ExecStart={command} ")
        pause = max(SHORTEST_PAUSE, min(LONGEST_PAUSE, interval_seconds // 4))
        return re.sub(r"(?m)^(OnUnitInactiveSec|RandomizedDelaySec)=.*$", rf"\1={pause}", text)

    def _remove(self, names: Sequence[str]) -> None:
        try:
            for name in names:
                (self.units / name).unlink(missing_ok=True)
            for folder in self.units.glob("*.wants/"):
                sync_folder(folder)
            sync_folder(self.units)
        except OSError as error:
            raise local_failure(error, f"remove the agent's units from {self.units}") from error

    def _must(self, *arguments: str) -> None:
        done = self._call(*arguments)
        if done.exit_code != 0:
            raise AgentError(
                Code.START_FAILED,
                f"the agent is installed but not registered: systemctl {' '.join(arguments)} failed: "
                f"{done.output[-300:]}. Mend that, then run install again",
            )

    def _call(self, *arguments: str) -> Finished:
        command = ["systemctl", "--no-ask-password", "--no-pager", "--quiet", *arguments]
        with contextlib.suppress(OSError):
            return self.programs.run(command, Path("/"), {}, CALL_SECONDS)
        return Finished(127, "there is no systemctl; expected a machine that systemd runs")


def shipped(name: str) -> str:
    """Return the text of a unit that the agent ships; raise ``AgentError(NOT_SUPPORTED)`` if it is not there."""
    for folder in (_PACKAGE / "systemd_units", _PACKAGE.parent / "systemd"):
        with contextlib.suppress(FileNotFoundError):
            return (folder / name).read_text()
    raise AgentError(Code.NOT_SUPPORTED, f"this build of the agent has no {name}; expected it in systemd_units")
