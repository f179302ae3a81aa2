"""Brings an endpoint back to one whole release set after a crash, and its programs back up (NFR-REL-003).

Everything here may be interrupted and run again; on a whole endpoint it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent import durable
from agent.actions import are_committed
from agent.codes import Code
from agent.contents import FOLDER, sweep_listings
from agent.endpoint import Endpoint
from agent.errors import AgentError
from agent.journal import Entry, Failure
from agent.logs import Severity
from agent.manifest import load_manifest
from agent.platform.logcap import MAX_BYTES, trim_logs
from agent.quarantine import ATTEMPTS, load_quarantine
from agent.registration import refresh_agent
from agent.removal import finish_removal
from agent.standing import Standing
from agent.steps import Step
from agent.units import unit_of_installed
from repo_server.core.package import ServiceKind


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery did."""

    entry: Entry | None = None
    """The sequence that it finished or took back, at its end."""
    not_running: tuple[Failure, ...] = ()
    """Components that should run and could not be started."""


def recover(endpoint: Endpoint) -> Recovered:
    """Finish or take back what was interrupted, then start what should run; the lock must be held.

    Raises ``Stuck`` when the last step cannot be finished, ``Purged`` when it finished a purge, and ``LocalFailure``.
    """
    entry = settle(endpoint)
    finish_removal(endpoint)
    refresh_agent(endpoint)
    recovered = Recovered(entry, ensure_running(endpoint))
    if entry is None:
        Standing(endpoint).corrected()
    return recovered


def settle(endpoint: Endpoint) -> Entry | None:
    """Finish or take back an interrupted sequence, and return its end; start nothing else.

    Raises ``Stuck`` when the last step cannot be finished, and ``LocalFailure``.
    """
    paths = endpoint.paths
    for folder in (paths.state, paths.install_root, paths.spool, paths.run, paths.downloads, paths.state / FOLDER):
        durable.sweep(folder)
    # Others may keep their files beside these.
    for file in (paths.config, paths.root_json, paths.manifest):
        durable.sweep(file.parent, file.name)
    for name, size in sorted(trim_logs(endpoint.paths.run).items()):
        if size > MAX_BYTES:
            endpoint.log.info("what a component wrote was cut", log=name, bytes=size)
    return _settle(endpoint)


def ensure_running(endpoint: Endpoint, only: frozenset[str] | None = None) -> tuple[Failure, ...]:
    """Start every component that was started and never stopped, and is not running; return what did not start."""
    failures = []
    quarantine, _ = load_quarantine(endpoint.paths.state / ATTEMPTS)
    for name, component in sorted(load_manifest(endpoint.paths.manifest).manifest.components.items()):
        skipped = only is not None and name not in only
        if skipped or quarantine.holds(name) is not None or not endpoint.services.wanted(name):
            continue
        try:
            unit = unit_of_installed(endpoint.paths, component, endpoint.config.service_manager)
            if unit.service.kind is ServiceKind.NONE or endpoint.services.running(unit):
                continue
            endpoint.log.warning("a component was not running and is started", component=name)
            endpoint.services.start(unit)
        except AgentError as error:
            endpoint.log.event(Severity.ERROR, error.message, code=error.code, component=name)
            failures.append(Failure(name, error.code, error.message))
    return tuple(failures)


def _settle(endpoint: Endpoint) -> Entry | None:
    found = endpoint.journal.read()
    if found.damage is not None:
        endpoint.log.error(found.damage, code=Code.STATE_DAMAGED)
    if found.entry is None:
        # Also the copy of a sequence that was never begun.
        endpoint.journal.clear()
        if found.damage is None:
            _tidy(endpoint)
        return None
    attempt = found.entry.sequence.attempt_id
    endpoint.log.warning("an update was interrupted", attempt_id=attempt, step=found.entry.step)
    runner = endpoint.runner()
    if found.damage is None:
        final = runner.resume(found.entry)
    else:
        manifest = load_manifest(endpoint.paths.manifest).manifest
        entry = found.entry
        if are_committed(manifest, entry.sequence.items):
            entry = replace(entry, step=Step.CLEAN, failure=None)
        endpoint.journal.write(entry)
        final = runner.run(entry)
    how = "finished" if final.failure is None else "taken back"
    endpoint.log.warning("the interrupted update is settled", attempt_id=attempt, how=how)
    return final


def _tidy(endpoint: Endpoint) -> None:
    """Remove what earlier sequences could not (FR-UPD-008); what still cannot be removed is tried again."""
    loaded = load_manifest(endpoint.paths.manifest)
    if loaded.damage is not None:
        return
    installed = {name: component.sha256 for name, component in loaded.manifest.components.items()}
    quarantine, _ = load_quarantine(endpoint.paths.state / ATTEMPTS)
    try:
        endpoint.installer.sweep(installed, [name for name in installed if quarantine.holds(name) is not None])
        sweep_listings(endpoint.paths, installed)
    except AgentError as error:
        endpoint.log.warning("left behind for now", code=error.code, error=error.message)
