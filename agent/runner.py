"""Runs a sequence: journal, act, look up what follows, until nothing is left to do (NFR-REL-002).

It decides nothing itself: ``steps.TRANSITIONS`` does, and the actions are given to it.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from agent.blame import Blamed
from agent.codes import Code
from agent.errors import AgentError, local_failure
from agent.journal import Entry, Failure, Journal
from agent.logs import Log, Severity
from agent.steps import COMMITTED, RESUME, TRANSITIONS, UNDOING, Event, Step, follow


class Interrupted(BaseException):
    """Somebody asked the agent to end. Raised only where a kill would be safe, too."""


class Interruption:
    """Turns a signal into ``Interrupted``, as long as turning back is still possible."""

    def __init__(self) -> None:
        self._armed = False
        self._requested = False

    def request(self, *_: object) -> None:
        """Ask the agent to end; usable as a signal handler."""
        self._requested = True
        if self._armed:
            self._armed = False
            raise Interrupted

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Let requests through, also one that came before."""
        if self._requested:
            raise Interrupted
        self._armed = True
        try:
            yield
        finally:
            self._armed = False


class Actions(Protocol):
    """Does the work of each step."""

    def act(self, entry: Entry) -> Event:
        """Do what the entry's step says. Raises ``AgentError`` or ``OSError``: the step failed."""


class Stuck(Exception):
    """The last step cannot be finished; it stays in the journal and is tried again at the next start."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Runner:
    """Takes a sequence from an entry to its end."""

    actions: Actions
    journal: Journal
    log: Log
    interruption: Interruption

    def run(self, entry: Entry) -> Entry:
        """Go on from an entry that is in the journal; return the last one, whose step is ``IDLE``. Raises ``Stuck``."""
        while entry.step is not Step.IDLE:
            event, failure = self._act(entry)
            step, position = follow(TRANSITIONS[entry.step][event], entry.position)
            went_back = entry.went_back or step is Step.UNDO_STOP
            after = replace(entry, step=step, position=position, went_back=went_back)
            after = _blamed(after, entry.step, failure)
            if step is entry.step:
                raise Stuck(failure or Failure(None, Code.INTERNAL, f"step {step} leads nowhere"))
            entry = self._enter(after, entry)
        return entry

    def resume(self, entry: Entry) -> Entry:
        """Go on after a crash from an entry that was found in the journal (NFR-REL-003). Raises ``Stuck``."""
        step, position = follow(RESUME[entry.step], entry.position)
        failure = entry.failure
        if failure is None and step not in COMMITTED:
            failure = Failure(None, Code.INTERRUPTED, f"the update was cut off at the step {entry.step}")
        return self.run(self._enter(replace(entry, step=step, position=position, failure=failure), entry))

    def _act(self, entry: Entry) -> tuple[Event, Failure | None]:
        """Run a step's action; whatever goes wrong is its failure."""
        component = _component(entry)
        self.log.info("step", step=entry.step, **about(entry, component))
        can_stop = entry.step not in UNDOING | COMMITTED
        try:
            with self.interruption.armed() if can_stop else contextlib.nullcontext():
                return self.actions.act(entry), None
        except Stuck:
            raise
        except Blamed as error:
            failure = Failure(error.component, error.code, error.message)
        except AgentError as error:
            failure = Failure(component, error.code, error.message)
        except OSError as error:
            wrapped = local_failure(error, f"do the step {entry.step}")
            failure = Failure(component, wrapped.code, wrapped.message)
        except Interrupted:
            failure = Failure(None, Code.CANCELLED, f"the updater was told to end at the step {entry.step}")
        except Exception as error:  # noqa: BLE001 -- a fault of ours must not stop the way back; it is said in full
            failure = Failure(component, Code.INTERNAL, f"{type(error).__name__} at the step {entry.step}: {error}")
            trace = traceback.format_exc()
            self.log.event(Severity.ERROR, "a fault in the updater", code=Code.INTERNAL, trace=trace)
        self._say(entry, failure)
        return Event.FAILED, failure

    def _enter(self, entry: Entry, before: Entry) -> Entry:
        """Write down the step that comes now; one that cannot be written down has not begun: that before it failed."""
        try:
            if entry.step is Step.IDLE:
                self.journal.clear()
            else:
                self.journal.write(entry)
        except AgentError as error:
            failure = Failure(None, error.code, error.message)
            self._say(entry, failure)
            if entry.step is Step.IDLE or (before.step is Step.COMMIT and entry.step is not Step.CLEAN):
                # The journal may say COMMIT, which leads forward: nothing may be taken back before it says otherwise.
                raise Stuck(failure) from error
            if entry.step in UNDOING or entry.step is Step.CLEAN:
                # What the journal says leads to the same end.
                return entry
            step, position = follow(TRANSITIONS[before.step][Event.FAILED], before.position)
            return self._enter(_blamed(replace(entry, step=step, position=position), before.step, failure), entry)
        return entry

    def _say(self, entry: Entry, failure: Failure) -> None:
        self.log.event(
            Severity.CRITICAL if entry.step in UNDOING else Severity.ERROR,
            f"step {entry.step} failed: {failure.message}",
            code=failure.code,
            **about(entry, failure.component),
        )


def about(entry: Entry, component: str | None) -> dict[str, str | None]:
    """Return the facts that stand in every event about an attempt (FR-LOG-001)."""
    item = next((one for one in entry.sequence.items if one.component == component), None)
    return {
        "component": component,
        "from_version": None if item is None else item.from_version,
        "to_version": None if item is None else item.version,
        "attempt_id": entry.sequence.attempt_id,
    }


def _component(entry: Entry) -> str | None:
    single = entry.step not in {Step.DOWNLOAD, Step.STAGE, Step.NEXT, Step.COMMIT, Step.CLEAN, Step.UNDO, Step.DISCARD}
    return entry.item.component if single else None


def _blamed(entry: Entry, failed: Step, failure: Failure | None) -> Entry:
    """Return the entry with a step's failure noted where it belongs."""
    if failure is None:
        return entry
    if failed in UNDOING:
        # The first failure of a component's way back says it all; the step CRITICAL itself only tidies up.
        if failed is Step.CRITICAL or failure.component is None:
            return entry
        return replace(entry, critical=(*entry.critical, failure))
    return entry if entry.failure is not None else replace(entry, failure=failure)
