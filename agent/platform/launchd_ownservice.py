"""The agent itself as a job of launchd: resident, or started for each check (FR-BST-002)."""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.codes import Code
from agent.durable import replace_file
from agent.errors import AgentError, local_failure
from agent.platform.launchctl import IN_PROGRESS, NOT_LOADED, Answer, Job, Launchctl, parse_print
from agent.platform.ownservice import LONGEST_PAUSE, SHORTEST_PAUSE, RunAs
from agent.platform.register import remove_durably
from agent.ports import Clock

LABEL = "com.commandit.updater"
LOG = "commandit-updater.log"
"""In the run folder, where logs are kept short."""
STOP_SECONDS = 300.0
"""How long launchd lets the agent finish: an update that is under way goes to its end, or back."""
_CALL_SECONDS = 30.0
_PAUSE = 0.1
_TARGET = f"system/{LABEL}"


@dataclass(frozen=True, slots=True)
class LaunchdOwnService:
    """Puts the agent's property list in place, and takes it out. Idempotent; a killed one is repeated.

    It is loaded at boot, and the first that the agent does then is to recover. ``timer``: ``StartInterval``.
    """

    launchctl: Launchctl
    clock: Clock
    command: Sequence[str]
    """How the agent is started."""
    daemons: Path
    """``/Library/LaunchDaemons``."""
    run_folder: Path
    own_pids: frozenset[int] = frozenset()
    """This process and its parent: if one of them is the job's, the job is not unloaded, for that would cut us off."""

    def current(self) -> RunAs:
        """Return how the agent is registered now; a list that somebody made unreadable counts as resident."""
        try:
            content = plistlib.loads(self._plist.read_bytes())
        except FileNotFoundError:
            return RunAs.NONE
        except (OSError, ValueError, plistlib.InvalidFileException):
            return RunAs.DAEMON
        return RunAs.TIMER if isinstance(content, dict) and "StartInterval" in content else RunAs.DAEMON

    def register(self, run_as: RunAs, interval_seconds: int) -> None:
        """Make the agent run so from now on and at each boot; ``NONE`` takes it out.

        Raises ``AgentError(START_FAILED)``, ``LocalFailure``.
        """
        if run_as is RunAs.NONE:
            self._unload()
            remove_durably(self._plist)
            return
        data = plistlib.dumps(self._content(run_as, interval_seconds))
        if self._is_there(data) and self._is_loaded():
            return
        self._unload()
        replace_file(self._plist, data, 0o644)
        if self._is_loaded():
            # We run in it ourselves; the next boot takes the new list.
            return
        # Someone may have disabled it; that is remembered by label, over boots and installations.
        self._must("enable", _TARGET)
        self._load()

    def refresh(self, interval_seconds: int) -> bool:
        """Write the list that is registered as this version writes it; launchd reads it at the next boot. Idempotent.

        Raises ``LocalFailure``.
        """
        run_as = self.current()
        data = plistlib.dumps(self._content(run_as, interval_seconds))
        if run_as is RunAs.NONE or self._is_there(data):
            return False
        replace_file(self._plist, data, 0o644)
        return True

    def _content(self, run_as: RunAs, interval_seconds: int) -> dict[str, Any]:
        words = ["run"] if run_as is RunAs.DAEMON else ["once", "--if-due"]
        log = str(self.run_folder / LOG)
        content: dict[str, Any] = {
            "Label": LABEL,
            "ProgramArguments": [*self.command, *words],
            "RunAtLoad": True,
            "ProcessType": "Background",
            "ExitTimeOut": int(STOP_SECONDS),
            "StandardOutPath": log,
            "StandardErrorPath": log,
            "Umask": 0o077,
        }
        if run_as is RunAs.DAEMON:
            return content | {"KeepAlive": True}
        return content | {"StartInterval": max(SHORTEST_PAUSE, min(LONGEST_PAUSE, interval_seconds // 4))}

    def _is_there(self, data: bytes) -> bool:
        try:
            return self._plist.read_bytes() == data
        except FileNotFoundError:
            return False
        except OSError as error:
            raise local_failure(error, f"read {self._plist}") from error

    def _is_loaded(self) -> bool:
        return self._job() is not None

    def _job(self) -> Job | None:
        answer = self._tell("print", _TARGET)
        if answer.exit_code not in {0, *NOT_LOADED}:
            raise _failed("print", answer)
        return parse_print(answer.output) if answer.exit_code == 0 else None

    def _unload(self) -> None:
        job = self._job()
        if job is None or job.pid in self.own_pids:
            return
        answer = self._tell("bootout", _TARGET, timeout=STOP_SECONDS + _CALL_SECONDS)
        deadline = self.clock.monotonic() + STOP_SECONDS + _CALL_SECONDS
        while self._is_loaded():
            if self.clock.monotonic() >= deadline:
                raise _failed("bootout", answer)
            self.clock.sleep(_PAUSE)

    def _load(self) -> None:
        deadline = self.clock.monotonic() + _CALL_SECONDS
        while True:
            answer = self._tell("bootstrap", "system", str(self._plist))
            if answer.exit_code == 0 or self._is_loaded():
                return
            if answer.exit_code not in IN_PROGRESS or self.clock.monotonic() >= deadline:
                raise _failed("bootstrap", answer)
            self.clock.sleep(_PAUSE)

    def _must(self, *arguments: str) -> None:
        answer = self._tell(*arguments)
        if answer.exit_code != 0:
            raise _failed(arguments[0], answer)

    def _tell(self, *arguments: str, timeout: float = _CALL_SECONDS) -> Answer:
        try:
            return self.launchctl(arguments, timeout)
        except OSError as error:
            raise AgentError(
                Code.NOT_SUPPORTED, f"launchctl cannot be run: {error.strerror}; expected macOS"
            ) from error

    @property
    def _plist(self) -> Path:
        return self.daemons / f"{LABEL}.plist"


def _failed(verb: str, answer: Answer) -> AgentError:
    return AgentError(
        Code.START_FAILED,
        f"the agent is installed but not registered: launchctl {verb}: {answer}. Mend that, then run install again",
    )
