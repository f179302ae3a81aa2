"""How a cycle ended: PURE, from the end of its sequence and what was left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent.codes import EXIT_PARTLY, Code
from agent.journal import Entry, Failure
from agent.outcome import summary
from agent.plan import Skipped
from agent.status import OperationStatus
from repo_server.core.wire import ReasonEntry


@dataclass(frozen=True, slots=True)
class Result:
    """What a command reports and the status keeps."""

    status: OperationStatus
    code: Code = Code.OK
    message: str | None = None
    installed: tuple[str, ...] = ()
    """``component version`` of everything that was installed."""
    notes: tuple[str, ...] = ()
    """Why components that are wanted are not there."""
    left_behind: tuple[str, ...] = ()
    """Preserved files that the new folder starts without (FR-RIN-002)."""

    @property
    def exit_code(self) -> int:
        """The command's exit code (design §11)."""
        return EXIT_PARTLY if self.status is OperationStatus.PARTIAL else self.code.exit_code


def failed(code: Code, message: str) -> Result:
    """Return the result of a cycle that changed nothing."""
    return Result(OperationStatus.FAILED, code, message)


def result_of(entry: Entry, *, recovered: bool = False) -> Result:
    """Return the result of a sequence at its end."""
    failure = summary(entry)
    if failure is None:
        done = tuple(f"{item.component} {item.version}" for item in entry.sequence.items)
        return Result(OperationStatus.SUCCESS, installed=done)
    if failure.code.is_critical:
        status = OperationStatus.CRITICAL
    elif recovered:
        status = OperationStatus.RECOVERED
    else:
        status = OperationStatus.ROLLED_BACK if entry.went_back else OperationStatus.FAILED
    return Result(status, failure.code, failure.message)


def with_skipped(result: Result, skipped: Iterable[Skipped]) -> Result:
    """Return the result with what was left out: partly done, if something else was installed.

    What only waits is no failure; it is noted.
    """
    skipped = tuple(skipped)
    result = replace(result, notes=(*result.notes, *(one.message for one in skipped if one.waits)))
    skipped = tuple(one for one in skipped if not one.waits)
    worst = max(skipped, key=lambda one: one.code.is_critical, default=None)
    if worst is None or result.status not in {OperationStatus.SUCCESS, OperationStatus.UP_TO_DATE}:
        return result
    if result.installed:
        return replace(result, status=OperationStatus.PARTIAL, code=worst.code, message=worst.message)
    return replace(result, status=OperationStatus.FAILED, code=worst.code, message=worst.message)


def with_stopped(result: Result, not_running: tuple[Failure, ...]) -> Result:
    """Return the result with programs that should run and do not, unless there is worse to say."""
    if not not_running or result.code is not Code.OK:
        return result
    first = not_running[0]
    return replace(result, status=OperationStatus.FAILED, code=first.code, message=first.message)


def notes(reasons: Iterable[ReasonEntry], installed: Iterable[str]) -> tuple[str, ...]:
    """Return the server's reasons for components that are wanted and not installed (promise 3)."""
    there = set(installed)
    return tuple(f"{reason.name}: {reason.detail} ({reason.code})" for reason in reasons if reason.name not in there)
