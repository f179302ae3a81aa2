"""What of an answer is carried out on this machine, and who is told of the rest (promise 3, FR-UPD-007, FR-CMP-007)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from agent.codes import Code
from agent.endpoint import Endpoint
from agent.logs import Severity
from agent.manifest import Manifest
from agent.outcome import skipped_record
from agent.plan import Plan, Skipped, make_plan
from agent.postpone import LOOK_SECONDS, WAITING, load_waits, postponed, save_waits
from agent.quarantine import ATTEMPTS, Quarantine, load_quarantine, save_quarantine
from agent.reinstall import Reinstall
from agent.selfupdate import NO_EXCHANGE
from agent.standing import Standing
from repo_server.core.model import UPDATER
from repo_server.core.wire import CheckResponse, Update


class Choice:
    """Plans with what the machine's own files and sessions say."""

    def __init__(self, endpoint: Endpoint, standing: Standing, trigger: str, reinstall: Reinstall | None) -> None:
        self._endpoint = endpoint
        self._standing = standing
        self._trigger = trigger
        self._reinstall = reinstall
        self._attempts = endpoint.paths.state / ATTEMPTS

    def plan(self, response: CheckResponse, manifest: Manifest, requested: frozenset[str]) -> Plan:
        """Decide what to do, and say once to the server what is skipped for good.

        Raises ``LocalFailure``, and ``AgentError`` (NOT_SUPPORTED) if what is to be installed anew is not offered.
        """
        quarantine, damage = load_quarantine(self._attempts)
        if damage is not None:
            self._endpoint.log.error(damage, code=Code.STATE_DAMAGED)
        installed = {name: component.version for name, component in manifest.components.items()}
        offers = response.updates
        if self._reinstall is not None:
            offers = self._reinstall.narrowed(offers, installed)
            if self._reinstall.component not in {update.name for update in offers}:
                raise self._reinstall.not_offered(response)
            # A person asks for it: what failed before is tried again.
            quarantine = quarantine.succeeded(frozenset({self._reinstall.component}))
        waiting = self._postponed(offers, manifest)
        plan = make_plan(offers, installed, quarantine, requested, waiting, self._unable(offers))
        for skipped in plan.skipped:
            severity = Severity.INFO if skipped.waits else Severity.WARNING
            self._endpoint.log.event(severity, skipped.message, code=skipped.code, component=skipped.update.name)
            quarantine = self._report_skipped(skipped, quarantine, manifest)
        return plan

    def _report_skipped(self, skipped: Skipped, quarantine: Quarantine, manifest: Manifest) -> Quarantine:
        """Say once to the server that a release is not tried any more, or never; return what is noted of it."""
        update, endpoint = skipped.update, self._endpoint
        release = (update.name, update.version, update.hash_sha256)
        tried = quarantine.refuses(*release) if skipped.code is Code.NOT_SUPPORTED else quarantine.skips(*release)
        if tried is None or tried.reported:
            return quarantine
        now, record_id = endpoint.world.clock.now(), endpoint.world.new_id()
        current = manifest.version_of(update.name)
        endpoint.spool.put(skipped_record(skipped, record_id, self._trigger, current, now))
        quarantine = quarantine.reporting(tried)
        save_quarantine(self._attempts, quarantine)
        return quarantine

    def _unable(self, offers: tuple[Update, ...]) -> dict[str, str]:
        """Return which of the offered components this machine cannot replace, and why (FR-SUP-001)."""
        installer = self._endpoint.installer
        offered = any(update.name == UPDATER for update in offers)
        if not offered or installer.identity(UPDATER) is None or installer.can_exchange(UPDATER):
            return {}
        return {UPDATER: NO_EXCHANGE.format(volume=self._endpoint.paths.install_root)}

    def _postponed(self, offers: tuple[Update, ...], manifest: Manifest) -> dict[str, str]:
        """Return which components are left out now, for somebody works with them, and why (FR-CMP-007)."""
        if self._reinstall is not None:
            # Who asks for that means now.
            return {}
        endpoint = self._endpoint
        longest = timedelta(seconds=endpoint.config.session_wait_seconds)
        messages, waits = postponed(
            offers, manifest, load_waits(self._waits), endpoint.sessions.active, endpoint.world.clock.now(), longest
        )
        save_waits(self._waits, waits)
        if messages:
            self._standing.no_later_than(LOOK_SECONDS)
        return messages

    @property
    def _waits(self) -> Path:
        return self._endpoint.paths.state / WAITING
