"""One cycle: recover, check, plan, update, report (design §8, FR-UPD-001 to FR-UPD-009)."""

from __future__ import annotations

from dataclasses import replace

from agent.actions import Source
from agent.adoption import adopt, adoptable
from agent.choice import Choice
from agent.client import Client
from agent.codes import Code
from agent.config import Config
from agent.download import Downloader
from agent.endpoint import Endpoint
from agent.errors import AgentError, NetworkFailure, local_failure
from agent.floor import load_floors
from agent.http import Transport
from agent.journal import Item, Sequence
from agent.logs import Severity
from agent.manifest import Manifest, load_manifest
from agent.plan import Plan
from agent.recover import recover
from agent.reinstall import Reinstall
from agent.reports import drain
from agent.request import check_request
from agent.result import Result, failed, notes, result_of, with_skipped, with_stopped
from agent.runner import Interrupted, Stuck
from agent.standing import Standing
from agent.status import OperationStatus
from agent.trust import Trust, load_root
from repo_server.core.wire import CheckResponse, Update

MOST_LOGGED = 64
_LOCAL = frozenset({Code.CONFIG_INVALID, Code.CONFIG_UNSAFE, Code.ROOT_INVALID, Code.PERMISSION, Code.IO})
"""Beside the network: what somebody may mend soon, so that the next try comes sooner than the next regular check."""


def transport_of(config: Config) -> Transport:
    """Return a transport to the configured hosts."""
    return Transport(config.servers, config.mirrors, secret=config.auth_secret, pinned_spki=config.pinned_spki)


class Cycle:
    """Runs one cycle on an endpoint whose lock is held."""

    def __init__(self, endpoint: Endpoint, trigger: str, reinstall: Reinstall | None = None) -> None:
        self._endpoint = endpoint
        self._trigger = trigger
        self._reinstall = reinstall
        self._retry_after: float | None = None
        self._standing = Standing(endpoint)
        config, clock, random = endpoint.config, endpoint.world.clock, endpoint.world.random
        self._transport = transport_of(config)
        self._client = Client(self._transport, config.servers, sleep=clock.sleep, random=random, now=clock.now)

    def run(self) -> Result:
        """Do everything; what fails is in the result, the status and the log. Raises ``LocalFailure`` only."""
        try:
            result = self._recover_and_update()
        except Stuck as error:
            result = failed(error.failure.code, f"{error.failure.message}; it is tried again at the next start")
        except Interrupted:
            result = failed(Code.CANCELLED, "told to end before anything was changed")
        except AgentError as error:
            self._retry_after = error.retry_after_seconds if isinstance(error, NetworkFailure) else None
            self._endpoint.log.event(Severity.ERROR, error.message, code=error.code)
            result = failed(error.code, error.message)
        finally:
            self._transport.close()
        if result.code.is_transient or result.code in _LOCAL:
            self._standing.not_answered(self._retry_after)
        self._standing.concluded(result)
        return result

    def _recover_and_update(self) -> Result:
        endpoint = self._endpoint
        recovered = recover(endpoint)
        if recovered.entry is not None:
            self._standing.concluded(result_of(recovered.entry, recovered=True))
        trust = Trust(load_root(endpoint.paths.root_json), load_floors(endpoint.paths.floor))
        if trust.floors.damage is not None:
            endpoint.log.error(trust.floors.damage, code=Code.STATE_DAMAGED)
        manifest = self._manifest()
        request = check_request(endpoint, manifest, self._again)
        requested = frozenset(component.name for component in request.components)
        if self._reinstall is not None:
            self._reinstall.check_known(requested)
        with endpoint.interruption.armed():
            response = self._client.check(request)
        self._standing.answered(response)
        self._say_what_was_answered(response, requested)
        plan = Choice(endpoint, self._standing, self._trigger, self._reinstall).plan(response, manifest, requested)
        self._drop_downloads({update.hash_sha256 for update in plan.updates})
        plan, adopted = self._adopt(plan, trust, manifest, requested)
        result = Result(OperationStatus.SUCCESS if adopted else OperationStatus.UP_TO_DATE)
        if plan.updates:
            result = self._carry_out(plan, trust, requested)
            if plan.later and result.code is Code.OK:
                waiting = ", ".join(update.name for update in plan.later)
                endpoint.log.info("these require the new updater, which installs them in its first cycle", left=waiting)
                self._standing.again_soon()
        result = replace(result, installed=(*adopted, *result.installed))
        self._send_reports()
        result = with_stopped(with_skipped(result, plan.skipped), recovered.not_running)
        return self._annotated(result, response, requested)

    def _say_what_was_answered(self, response: CheckResponse, requested: frozenset[str]) -> None:
        log, unknown = self._endpoint.log, self._endpoint.config.unknown
        if unknown:
            log.warning("updater.conf has keys that this version does not know; mistyped?", keys=unknown)
        log.info(
            "checked",
            trigger=self._trigger,
            channel=response.channel,
            offered=[f"{update.name} {update.version}" for update in response.updates[:MOST_LOGGED]],
            reasons={one.name: one.code for one in response.reasons if one.name in requested},
        )

    @property
    def _again(self) -> str | None:
        return None if self._reinstall is None else self._reinstall.component

    def _adopt(
        self, plan: Plan, trust: Trust, manifest: Manifest, requested: frozenset[str]
    ) -> tuple[Plan, tuple[str, ...]]:
        """Take over what is on the disk already; return the rest of the plan, and what was taken over."""
        endpoint, adopted = self._endpoint, []
        for update in () if self._reinstall is not None else tuple(adoptable(endpoint, plan, manifest)):
            try:
                trust.accept(update, endpoint.world.platform, None, requested)
            except AgentError:
                # The sequence that follows says why.
                break
            sequence = self._sequence((update,))
            self._standing.began(sequence)
            entry = adopt(endpoint, sequence)
            if entry.failure is not None:
                endpoint.log.warning("not adopted", code=entry.failure.code, component=update.name)
                break
            adopted.append(update)
        rest = tuple(update for update in plan.updates if update not in adopted)
        return replace(plan, updates=rest), tuple(f"{update.name} {update.version}" for update in adopted)

    def _drop_downloads(self, wanted: set[str]) -> None:
        """Remove what earlier attempts fetched and nobody will resume (FR-UPD-008)."""
        try:
            for path in self._endpoint.paths.downloads.iterdir():
                if not any(digest in path.name for digest in wanted):
                    path.unlink()
        except OSError as error:
            raise local_failure(error, f"clean up {self._endpoint.paths.downloads}") from error

    def _carry_out(self, plan: Plan, trust: Trust, requested: frozenset[str]) -> Result:
        endpoint, config, clock = self._endpoint, self._endpoint.config, self._endpoint.world.clock
        downloader = Downloader(
            self._transport,
            config.servers,
            config.mirrors,
            sleep=clock.sleep,
            random=endpoint.world.random,
            monotonic=clock.monotonic,
            free_bytes=endpoint.disk.free_bytes,
        )
        again = frozenset() if self._again is None else frozenset({self._again})
        source = Source(
            {update.name: update for update in plan.updates},
            trust,
            downloader,
            requested,
            again,
            reach=lambda: self._client.check(check_request(endpoint, self._manifest())),
        )
        left_behind = () if self._reinstall is None else self._reinstall.left_behind(endpoint.paths, self._manifest())
        sequence = self._sequence(plan.updates)
        self._standing.began(sequence)
        result = result_of(endpoint.runner(source).run(endpoint.journal.begin(sequence)))
        self._retry_after = downloader.retry_after_seconds
        return replace(result, left_behind=left_behind) if result.installed else result

    def _sequence(self, updates: tuple[Update, ...]) -> Sequence:
        endpoint, manifest = self._endpoint, self._manifest()
        items = tuple(
            Item(
                component=update.name,
                version=update.version,
                from_version=None if (current := manifest.version_of(update.name)) is None else str(current),
                action=update.action,
                sha256=update.hash_sha256,
                record_id=endpoint.world.new_id(),
                old_folder=endpoint.installer.identity(update.name),
                clean=self._reinstall is not None and self._reinstall.clean and update.name == self._again,
            )
            for update in updates
        )
        return Sequence(endpoint.world.new_id(), self._trigger, endpoint.world.clock.now(), items)

    def _send_reports(self) -> None:
        endpoint, device_id = self._endpoint, self._endpoint.config.device_id
        if device_id is None or not self._standing.may_report():
            return
        drained = drain(endpoint.spool, self._client, device_id, endpoint.log)
        failure = drained.failure
        self._standing.reported(failure.retry_after_seconds if isinstance(failure, NetworkFailure) else None)
        if failure is not None:
            endpoint.log.warning(failure.message, code=failure.code, left=drained.left)

    def _annotated(self, result: Result, response: CheckResponse, requested: frozenset[str]) -> Result:
        reasons = {reason.name: reason for reason in response.reasons if reason.name in requested}
        return replace(result, notes=(*result.notes, *notes(reasons.values(), self._manifest().components)))

    def _manifest(self) -> Manifest:
        loaded = load_manifest(self._endpoint.paths.manifest)
        if loaded.damage is not None:
            self._endpoint.log.error(loaded.damage, code=Code.STATE_DAMAGED)
        return loaded.manifest
