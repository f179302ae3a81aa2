"""Takes components, and with ``purge`` everything of the agent, off a machine (design §8, promise 1).

What is to go stands in ``removal.json`` before anything is touched. A removal that was cut off is finished by the next
recovery: every step may be repeated, and looks at what is still there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from agent import durable
from agent.codes import Code
from agent.config import load_config, write_config
from agent.contents import drop_listings
from agent.endpoint import Endpoint
from agent.errors import AgentError, ConfigInvalid, local_failure
from agent.manifest import load_manifest, save_manifest
from agent.paths import Paths
from agent.platform.files import remove_any
from agent.ports import Unit
from agent.quarantine import ATTEMPTS, load_quarantine, save_quarantine
from agent.registration import unregister_agent
from agent.services import chosen
from repo_server.core.model import COMPONENT_PATTERN, UPDATER

FILE = "removal.json"


class Purged(Exception):
    """Nothing of the agent is left, so there is nothing that a command could go on with."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to go."""

    components: tuple[str, ...]
    everything: bool = False
    """Also the agent's own registration with the system."""
    purge: bool = False
    """Also state, configuration and root of trust."""
    stopped: bool = False
    """Whether all programs were stopped: from here on it only goes forward."""


def removal_path(paths: Paths) -> Path:
    """Return where a removal is written down."""
    return paths.state / FILE


def begin_removal(endpoint: Endpoint, names: tuple[str, ...], *, purge: bool) -> Removal:
    """Write down what is to go: the named components, or everything; no sequence may be under way.

    Raises ``AgentError`` (NOT_SUPPORTED) for what is not installed, ``LocalFailure``.
    """
    if UPDATER in names:
        raise AgentError(
            Code.NOT_SUPPORTED,
            "updater is this agent itself; uninstall without names takes everything off the machine, and it last",
        )
    components = [component.name for component in reversed(chosen(endpoint, names))]
    removal = Removal(tuple(sorted(components, key=lambda name: name == UPDATER)), everything=not names, purge=purge)
    _write(endpoint, removal)
    return removal


def finish_removal(endpoint: Endpoint) -> Removal | None:
    """Do what is written down, if anything; the lock must be held. Idempotent.

    Raises ``Purged`` after a purge; ``AgentError`` (STOP_FAILED) if a program cannot be stopped, and the removal is
    given up then, with every folder in place; ``LocalFailure``, and the next recovery goes on.
    """
    removal = _read(endpoint)
    if removal is None:
        return None
    endpoint.log.warning("components are removed", components=removal.components, purge=removal.purge)
    if not removal.stopped:
        _stop(endpoint, removal)
        removal = replace(removal, stopped=True)
        _write(endpoint, removal)
    for name in removal.components:
        _remove_component(endpoint, name)
    _forget(endpoint, removal)
    if removal.everything:
        unregister_agent(endpoint)
    if removal.purge:
        _purge(endpoint.paths)
        raise Purged
    durable.remove(removal_path(endpoint.paths))
    return removal


def _read(endpoint: Endpoint) -> Removal | None:
    """Read what is to go; a note that cannot be used goes itself: nobody knows any more what was meant."""
    path = removal_path(endpoint.paths)
    loaded = durable.load(path, fall_back=False)
    damage = loaded.damage
    if loaded.payload is not None:
        try:
            removal = msgspec.convert(loaded.payload, Removal)
        except msgspec.ValidationError as error:
            damage = f"{path} has a form that is not known: {error}"
        else:
            if all(re.fullmatch(COMPONENT_PATTERN, name) for name in removal.components):
                return removal
            damage = f"{path} names something that is no component"
    if damage is not None:
        endpoint.log.error("a removal is forgotten; repeat it", code=Code.STATE_DAMAGED, damage=damage)
        durable.remove(path)
    return None


def _write(endpoint: Endpoint, removal: Removal) -> None:
    plain: dict[str, Any] = msgspec.to_builtins(removal)
    durable.save(removal_path(endpoint.paths), plain, keep_previous=False)


def _stop(endpoint: Endpoint, removal: Removal) -> None:
    installed = load_manifest(endpoint.paths.manifest).manifest.components
    try:
        for name in removal.components:
            if name in installed:
                endpoint.services.remove(Unit(name, endpoint.paths.install(name), installed[name].package.service))
    except AgentError as error:
        durable.remove(removal_path(endpoint.paths))
        raise AgentError(error.code, f"{error.message}; nothing was removed, try again when it is stopped") from error


def _remove_component(endpoint: Endpoint, name: str) -> None:
    places = endpoint.installer.places(name)
    try:
        # The name goes at once; a link in its place goes, and what it leads to stays.
        if places.live.is_symlink() or places.live.exists():
            endpoint.installer.clean(name)
            endpoint.disk.rename(places.live, places.old)
            durable.sync_folder(places.live.parent)
        for log in (f"{name}.log", f"{name}.log.1"):
            (endpoint.paths.run / log).unlink(missing_ok=True)
    except OSError as error:
        raise local_failure(error, f"remove {places.live}") from error
    endpoint.installer.clean(name)
    drop_listings(endpoint.paths, name, but=None)


def _forget(endpoint: Endpoint, removal: Removal) -> None:
    """Take the components out of the manifest, out of what failed, and out of what this machine should have."""
    paths, names = endpoint.paths, frozenset(removal.components)
    manifest = load_manifest(paths.manifest).manifest
    if names & manifest.components.keys():
        save_manifest(paths.manifest, manifest.without(*names))
    quarantine, _ = load_quarantine(paths.state / ATTEMPTS)
    if (after := quarantine.succeeded(names)) != quarantine:
        save_quarantine(paths.state / ATTEMPTS, after)
    try:
        if not removal.purge and paths.config.exists():
            wanted = load_config(paths.config, {}, {}).components
            left = [] if removal.everything else [name for name in wanted if name not in names]
            if left != list(wanted):
                write_config(paths.config, {"components": left})
    except ConfigInvalid as error:
        endpoint.log.warning("the configuration still names what was removed", code=error.code, error=error.message)


def _purge(paths: Paths) -> None:
    """Remove every file of the agent and the folders that are empty then, the note of it last."""
    note = removal_path(paths)
    try:
        for path in _own_files(paths):
            path.unlink(missing_ok=True)
        for path in paths.state.iterdir():
            if path not in {note, paths.lock}:
                remove_any(path)
        durable.sync_folder(paths.state)
        note.unlink(missing_ok=True)
        paths.lock.unlink(missing_ok=True)
        for folder in (paths.state, paths.config_folder, paths.install_root):
            # Somebody else's files stay, and their folder.
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
                durable.sync_folder(folder.parent)
    except OSError as error:
        raise local_failure(error, "remove the agent's files") from error


def _own_files(paths: Paths) -> Iterator[Path]:
    """Yield the agent's files outside the state folder, also where the configuration moved them."""
    yield from (paths.config, paths.root_json)
    yield from (paths.manifest, durable.previous_of(paths.manifest), paths.log)
    yield from (path for path in paths.log.parent.glob(f"{paths.log.name}.*") if path.suffix[1:].isdigit())
