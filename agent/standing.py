"""Keeps ``status.json`` true while a cycle goes on (FR-STA-001)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from agent.codes import Code
from agent.endpoint import Endpoint
from agent.journal import Sequence
from agent.manifest import load_manifest
from agent.paths import Paths
from agent.quarantine import ATTEMPTS, load_quarantine
from agent.result import Result
from agent.schedule import (
    SHORTEST,
    after_answer,
    after_failure,
    load_remembered,
    may_report,
    save_remembered,
    spread,
)
from agent.status import ComponentVersion, OperationStatus, Quarantined, Status, load_status, save_status
from repo_server.core.wire import CheckResponse

SCHEDULE = "schedule.json"
MOST_NOTES = 2000


class Standing:
    """The status of an endpoint whose lock is held. Every method raises ``LocalFailure``."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._paths = endpoint.paths
        self._config = endpoint.config
        self._world = endpoint.world
        self._log = endpoint.log

    def answered(self, response: CheckResponse) -> None:
        """Note an answer, and when the next check is."""
        interval = self._config.update_check_interval_seconds
        delay = after_answer(interval, response.next_check_seconds, self._world.random)
        save_remembered(self._schedule, replace(load_remembered(self._schedule), failures=0))
        self._change(last_check_time=self._now(), assigned_channel=response.channel, next_check_time=self._in(delay))

    def again_soon(self) -> None:
        """Note that the next check is as soon as one may be."""
        self._change(next_check_time=self._in(SHORTEST))

    def no_later_than(self, seconds: float) -> None:
        """Note that the next check comes within about so many seconds."""
        latest, following = self._in(spread(seconds, self._world.random)), load_status(self._paths.status).status
        if following.next_check_time is None or following.next_check_time > latest:
            self._change(next_check_time=latest)

    def not_answered(self, retry_after: float | None) -> None:
        """Note that there was none; the next try comes sooner, and later with each failure in a row."""
        remembered, interval = load_remembered(self._schedule), float(self._config.update_check_interval_seconds)
        delay = after_failure(remembered.failures, interval, retry_after, self._world.random)
        save_remembered(self._schedule, replace(remembered, failures=remembered.failures + 1))
        self._change(next_check_time=self._in(delay))

    def may_report(self) -> bool:
        """Whether the server can be sent reports now, or asked for time."""
        return may_report(load_remembered(self._schedule), self._now())

    def reported(self, retry_after: float | None) -> None:
        """Note when the server wants to be sent reports again; ``None``: it did not say."""
        again = None if retry_after is None else self._in(retry_after)
        save_remembered(self._schedule, replace(load_remembered(self._schedule), reports_after=again))

    def began(self, sequence: Sequence) -> None:
        """Note that an update is under way."""
        self._change(last_update_attempt_time=sequence.started_at, last_operation_status=OperationStatus.IN_PROGRESS)

    def concluded(self, result: Result) -> None:
        """Note how it ended. A component that waits for a person stays the headline until it is repaired."""
        quarantine, _ = load_quarantine(self._paths.state / ATTEMPTS)
        status, code, message = result.status, result.code, result.message
        if code is Code.OK and result.notes:
            # Status `up_to_date` alone would hide that something wanted is not there (promise 3).
            message = "; ".join(result.notes)[:MOST_NOTES]
        if quarantine.held:
            held = quarantine.held[0]
            status, code = OperationStatus.CRITICAL, Code.ROLLBACK_FAILED
            how = "may still run, for it cannot be stopped" if held.code is Code.STOP_FAILED else "is stopped"
            message = f"{held.component} could not be taken back and {how}: {held.message}"
        changes: dict[str, object] = {"last_update_success_time": self._now()} if result.installed else {}
        self._change(
            **changes,
            installed_components=_installed(self._paths),
            last_operation_status=status,
            last_error_code=code,
            last_error_message=message,
            quarantined=tuple(
                Quarantined(one.component, one.version, len(one.attempts), one.code)
                for one in quarantine.tried
                if one.is_quarantined
            ),
        )

    def corrected(self) -> None:
        """Say how a cycle ended that was cut off when it had nothing left to do but to say so."""
        before = load_status(self._paths.status).status
        installed = _installed(self._paths)
        if before.last_operation_status is not OperationStatus.IN_PROGRESS:
            self._change(installed_components=installed)
            return
        changed = tuple(f"{one.name} {one.version}" for one in installed if one not in before.installed_components)
        why = "the last update was cut off and is not installed"
        self.concluded(
            Result(OperationStatus.SUCCESS, installed=changed)
            if changed
            else Result(OperationStatus.RECOVERED, Code.INTERRUPTED, why)
        )

    def _change(self, **changes: object) -> None:
        loaded = load_status(self._paths.status)
        if loaded.damage is not None:
            self._log.warning(loaded.damage, code=Code.STATE_DAMAGED)
        status: Status = replace(loaded.status, **changes)  # type: ignore[arg-type]
        if status != loaded.status or loaded.damage is not None:
            save_status(self._paths.status, status)

    @property
    def _schedule(self) -> Path:
        return self._paths.state / SCHEDULE

    def _now(self) -> datetime:
        return self._world.clock.now()

    def _in(self, seconds: float) -> datetime:
        return self._now() + timedelta(seconds=seconds)


def _installed(paths: Paths) -> tuple[ComponentVersion, ...]:
    components = load_manifest(paths.manifest).manifest.components
    return tuple(ComponentVersion(name, str(components[name].version)) for name in sorted(components))
