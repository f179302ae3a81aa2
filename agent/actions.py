"""What each step of a sequence does. Everything from ``STOP`` on is told to the ports and can be told again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.blame import fault_of
from agent.codes import Code
from agent.contents import drop_listings
from agent.download import Downloader
from agent.durable import sync_folder
from agent.errors import AgentError, PackageRefused
from agent.health import HealthChecker
from agent.install import Installer
from agent.journal import Entry, Failure, Item
from agent.logs import Log, Severity
from agent.manifest import InstalledComponent, Manifest, load_manifest, save_manifest
from agent.outcome import final_records, judged
from agent.paths import Paths
from agent.ports import Clock, Programs, ServiceManager, Unit
from agent.quarantine import ATTEMPTS, load_quarantine, save_quarantine
from agent.runner import Stuck, about
from agent.selfupdate import Watch, check_form
from agent.spool import Spool
from agent.steps import Event, Step
from agent.trust import Trust
from agent.units import unit_of
from repo_server.core.model import UPDATER, Platform
from repo_server.core.package import PackageManifest, ServiceKind
from repo_server.core.version import Version
from repo_server.core.wire import Update


@dataclass(frozen=True, slots=True)
class Source:
    """Where a new sequence gets its packages from; a resumed one needs none."""

    updates: Mapping[str, Update]
    trust: Trust
    downloader: Downloader
    requested: frozenset[str]
    again: frozenset[str] = frozenset()
    """What may come in the version that is installed (FR-RIN-001)."""
    reach: Callable[[], object] | None = None
    """Asks the server again; raises ``NetworkFailure`` if this agent does not reach it."""


@dataclass(frozen=True, slots=True)
class SequenceActions:
    """The ``Actions`` of the runner, on the real machine."""

    paths: Paths
    platform: Platform
    clock: Clock
    installer: Installer
    services: ServiceManager
    programs: Programs
    health: HealthChecker
    watch: Watch
    spool: Spool
    log: Log
    run_by: ServiceKind | None = None
    """Who runs the components, whatever their packages say; ``None``: what they say."""
    source: Source | None = None
    _archives: dict[str, Path] = field(default_factory=dict)

    def act(self, entry: Entry) -> Event:
        """Do what the entry's step says."""
        if entry.step is Step.NEXT:
            return Event.MORE if entry.position < len(entry.sequence.items) else Event.DONE
        if entry.step is Step.UNDO:
            return Event.MORE if entry.position >= 0 else Event.DONE
        whole: Mapping[Step, Callable[[Entry], None]] = {
            Step.DOWNLOAD: self._download,
            Step.STAGE: self._stage,
            Step.PRE_HOOK: self._pre_hook,
            Step.POST_HOOK: self._post_hook,
            Step.CRITICAL: self._leave_stopped,
            Step.COMMIT: self._commit,
            Step.CLEAN: self._clean,
            Step.DISCARD: self._discard,
        }
        if entry.step in whole:
            whole[entry.step](entry)
            return Event.DONE
        single: Mapping[Step, Callable[[Item], None]] = {
            Step.STOP: self._stop_any,
            Step.EXCHANGE: self._exchange,
            Step.START: self._start_new,
            Step.HEALTH: self._check_new,
            Step.UNDO_STOP: self._stop_any,
            Step.UNDO_EXCHANGE: self.installer.restore,
            Step.UNDO_START: self._start_old,
            Step.UNDO_HEALTH: self._check_old,
        }
        single[entry.step](entry.item)
        return Event.DONE

    # Before anything is touched

    def _download(self, entry: Entry) -> None:
        source = self._needs_source()
        installed = self._manifest()
        for item in entry.sequence.items:
            with fault_of(item.component):
                update = source.updates[item.component]
                version, again = installed.version_of(item.component), item.component in source.again
                accepted = source.trust.accept(update, self.platform, version, source.requested, again=again)
                self.log.info("the signature is valid", **about(entry, item.component), key_ids=accepted.key_ids)
        sizes = {item.component: source.updates[item.component].size for item in entry.sequence.items}
        globs = {name: component.package.preserve for name, component in installed.components.items()}
        self.installer.check_space(sizes, globs)
        for item in entry.sequence.items:
            with fault_of(item.component):
                update = source.updates[item.component]
                self._archives[item.component] = source.downloader.fetch(update, self.paths.downloads)
                self.log.info("the digest is right", **about(entry, item.component), sha256=update.hash_sha256)

    def _stage(self, entry: Entry) -> None:
        quarantine, _ = load_quarantine(self._quarantine_file)
        save_quarantine(self._quarantine_file, quarantine.counting(entry.sequence.items, entry.sequence.attempt_id))
        packages: list[PackageManifest] = []
        for item in entry.sequence.items:
            with fault_of(item.component):
                package = self.installer.stage(item, self.platform, self._archives[item.component])
                self._unit(package)
                if item.component == UPDATER:
                    check_form(package, self.installer.places(UPDATER).new)
                packages.append(package)
        self._check_requirements(packages)

    def _check_requirements(self, packages: Sequence[PackageManifest]) -> None:
        """Check what the signed packages themselves require, whatever the server said."""
        versions = {name: component.version for name, component in self._manifest().components.items()}
        after = versions | {package.id.component: package.id.version for package in packages}
        for package in packages:
            for needed in package.requires:
                itself = needed.name == package.id.component
                have = (versions if itself else after).get(needed.name)
                if have is None or have < needed.min_version:
                    with fault_of(package.id.component):
                        raise PackageRefused(
                            Code.NOT_SUPPORTED, f"{package.id} requires {needed}; there is {have or 'none'}"
                        )

    # One component forward

    def _pre_hook(self, entry: Entry) -> None:
        self._hook(entry, self.installer.staged(entry.item.component).hooks.pre_install, "pre_install")

    def _post_hook(self, entry: Entry) -> None:
        self._hook(entry, self.installer.staged(entry.item.component).hooks.post_install, "post_install")

    def _hook(self, entry: Entry, command: Sequence[str], name: str) -> None:
        if not command:
            return
        item = entry.item
        places = self.installer.places(item.component)
        limit = self.installer.staged(item.component).hooks.timeout_seconds
        environment = {
            "COMMANDIT_COMPONENT": item.component,
            "COMMANDIT_HOOK": name,
            "COMMANDIT_INSTALL_FOLDER": str(places.live),
            "COMMANDIT_OLD_VERSION": item.from_version or "",
            "COMMANDIT_NEW_VERSION": item.version,
        }
        try:
            finished = self.programs.run(command, places.unpacked, environment, limit)
        except OSError as error:
            raise AgentError(Code.HOOK_FAILED, f"{name} {command[0]} cannot be started: {error.strerror}") from error
        facts = {"hook": name, "exit_code": finished.exit_code, "output": finished.output}
        self.log.info("a hook ended", **about(entry, item.component), **facts)
        if finished.exit_code != 0:
            how = (
                f"ended with {finished.exit_code}" if finished.exit_code is not None else f"ran longer than {limit:g} s"
            )
            said = f": {finished.output[-300:]}" if finished.output else ""
            raise AgentError(Code.HOOK_FAILED, f"{item.component}: the hook {name} {how}{said}")

    def _stop_any(self, item: Item) -> None:
        # What runs may be of either version, and after a lost manifest only the new one says how it is stopped.
        unit = self._installed_unit(item.component) or self._staged_unit(item.component)
        if unit is not None:
            self._stop(unit)

    def _exchange(self, item: Item) -> None:
        # What starts at boot stays the committed agent: its folder changes places in the step COMMIT.
        if item.component != UPDATER:
            self.installer.exchange(item)

    def _start_new(self, item: Item) -> None:
        self._start(self._unit(self.installer.staged(item.component)))

    def _check_new(self, item: Item) -> None:
        package = self.installer.staged(item.component)
        if item.component == UPDATER:
            reach = None if self.source is None else self.source.reach
            self.watch.check(self.installer.places(UPDATER).new, package, reach)
        else:
            self.health.check(self._unit(package), package.health)

    # The end of a sequence

    def _commit(self, entry: Entry) -> None:
        for item in entry.sequence.items:
            if item.component == UPDATER and self.installer.identity(UPDATER) == item.old_folder:
                self.installer.exchange(item)
        now, before = self.clock.now(), self._manifest()
        new = [
            InstalledComponent(
                name=item.component,
                version=Version(item.version),
                path=str(self.installer.places(item.component).live),
                sha256=item.sha256,
                package_toml=self.installer.staged_text(item.component),
                installed_at=now,
                record_id=item.record_id,
            )
            for item in entry.sequence.items
            if not _is_committed(before, item)
        ]
        if not new:
            # Written before a crash, and perhaps not durable yet; what comes next rests on it.
            sync_folder(self.paths.manifest.parent)
            return
        try:
            save_manifest(self.paths.manifest, before.having(*new))
        except AgentError as error:
            self._uncommit(before, error)
            raise

    def _uncommit(self, before: Manifest, why: AgentError) -> None:
        """Make sure that the manifest names the old set; raise ``Stuck`` if that is not sure."""
        try:
            save_manifest(self.paths.manifest, before)
        except AgentError as error:
            raise Stuck(Failure(None, why.code, why.message)) from error

    def _clean(self, entry: Entry) -> None:
        self._put_records(entry)
        quarantine, _ = load_quarantine(self._quarantine_file)
        components = frozenset(item.component for item in entry.sequence.items)
        if (after := quarantine.succeeded(components)) != quarantine:
            save_quarantine(self._quarantine_file, after)
        for item in entry.sequence.items:
            self.log.info("installed", **about(entry, item.component))
        self._tidy(entry, keep_downloads=False)

    def _discard(self, entry: Entry) -> None:
        self._put_records(entry)
        quarantine, _ = load_quarantine(self._quarantine_file)
        if (after := judged(quarantine, entry)) != quarantine:
            save_quarantine(self._quarantine_file, after)
        self._say_how_it_ended(entry)
        # What arrived before the connection broke is resumed in the next cycle.
        self._tidy(entry, keep_downloads=entry.failure is not None and entry.failure.code.is_transient)

    def _say_how_it_ended(self, entry: Entry) -> None:
        """Log why a sequence went back, and whether that was verified (FR-RBK-001, FR-RBK-002)."""
        failed = entry.critical[0] if entry.critical else entry.failure
        code = Code.OK if entry.failure is None else entry.failure.code
        self.log.event(
            Severity.CRITICAL if entry.critical else Severity.WARNING,
            "an update was taken back" if entry.went_back else "an update ended before anything was changed",
            **about(entry, None if failed is None else failed.component),
            code=Code.ROLLBACK_FAILED if entry.critical else code,
            reason=None if entry.failure is None else entry.failure.message,
            restored_and_healthy=not entry.critical if entry.went_back else None,
            left_stopped=[failure.component for failure in entry.critical] or None,
        )

    def _put_records(self, entry: Entry) -> None:
        for record in final_records(entry, self.clock.now()):
            put = self.spool.put(record)
            for dropped in put.dropped:
                self.log.warning("the spool is full: the oldest report was dropped", record_id=dropped)

    def _tidy(self, entry: Entry, *, keep_downloads: bool) -> None:
        """Remove what the sequence left; what cannot be removed now is removed before the next one (FR-UPD-008)."""
        critical = {failure.component for failure in entry.critical}
        installed = self._manifest().components
        try:
            for item in entry.sequence.items:
                current = installed.get(item.component)
                drop_listings(self.paths, item.component, but=None if current is None else current.sha256)
                if item.component not in critical:
                    self.installer.clean(item.component)
                if not keep_downloads:
                    for left in self.paths.downloads.iterdir():
                        if item.sha256 in left.name:
                            left.unlink()
        except (AgentError, OSError) as error:
            self.log.warning("left behind for now", attempt_id=entry.sequence.attempt_id, error=str(error))

    # One component back

    def _start_old(self, item: Item) -> None:
        old = self._installed_unit(item.component)
        if old is not None:
            self._start(old)

    def _check_old(self, item: Item) -> None:
        component = self._manifest().components.get(item.component)
        if component is not None and item.component != UPDATER:
            self.health.check(self._unit(component.package), component.package.health)

    def _leave_stopped(self, entry: Entry) -> None:
        item = entry.item
        self.log.critical(
            "a component could not be taken back; it is left stopped until a person repairs it",
            code=Code.ROLLBACK_FAILED,
            **about(entry, item.component),
        )
        try:
            self._stop_any(item)
        finally:
            self.installer.restore(item)

    # Helpers

    def _start(self, unit: Unit) -> None:
        if unit.service.kind is not ServiceKind.NONE:
            self.services.start(unit)

    def _stop(self, unit: Unit) -> None:
        # Also for kind "none": an earlier version may have had a program.
        self.services.stop(unit)

    def _installed_unit(self, component: str) -> Unit | None:
        installed = self._manifest().components.get(component)
        return None if installed is None else self._unit(installed.package)

    def _staged_unit(self, component: str) -> Unit | None:
        try:
            return self._unit(self.installer.staged(component))
        except AgentError as error:
            self.log.warning("no unpacked package", code=error.code, component=component, error=error.message)
            return None

    def _unit(self, package: PackageManifest) -> Unit:
        return unit_of(self.paths, package, self.run_by)

    def _manifest(self) -> Manifest:
        return load_manifest(self.paths.manifest).manifest

    @property
    def _quarantine_file(self) -> Path:
        return self.paths.state / ATTEMPTS

    def _needs_source(self) -> Source:
        if self.source is None:
            raise RuntimeError("a resumed sequence never downloads")
        return self.source


def _is_committed(manifest: Manifest, item: Item) -> bool:
    component = manifest.components.get(item.component)
    if component is None or (str(component.version), component.sha256) != (item.version, item.sha256):
        return False
    # The same package again is another attempt; agents before 0.2 did not note which.
    return component.record_id in {"", item.record_id}


def are_committed(manifest: Manifest, items: Sequence[Item]) -> bool:
    """Whether a whole sequence is in the manifest."""
    return all(_is_committed(manifest, item) for item in items)
