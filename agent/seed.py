"""A build of the agent that was handed to a machine installs itself as the component ``updater`` (FR-BST-001).

That is a sequence of one component that begins at *commit*: nothing is on trial, for it is what runs here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from agent import durable
from agent.contents import keep_listing, list_folder, listing_path
from agent.endpoint import Endpoint
from agent.errors import local_failure
from agent.journal import Entry, Item, Sequence
from agent.landing import landing
from agent.manifest import load_manifest
from agent.paths import PRIVATE_FOLDER
from agent.selfupdate import is_installed, program_in
from agent.steps import Step
from repo_server.core.model import UPDATER
from repo_server.core.package import MANIFEST_NAME, PackageManifest, parse_package_toml
from repo_server.core.wire import Action

_PIECE = 1024 * 1024


def seed(endpoint: Endpoint, package_toml: str, files: Mapping[str, Path]) -> Entry | None:
    """Install this build, and return the end of its sequence; ``None`` if it, or a newer one, is installed already.

    ``files``: path below the install folder → what lies there. No sequence may be under way, and the lock must be
    held. Raises ``Stuck``, ``LocalFailure``. Killed anywhere, recovery leaves the old agent or the new one.
    """
    package = parse_package_toml(package_toml.encode())
    have = load_manifest(endpoint.paths.manifest).manifest.version_of(UPDATER)
    program = program_in(endpoint.paths.install(UPDATER), endpoint.world.platform.os)
    newer = have is not None and have >= package.id.version and program.exists()
    if newer or is_installed(endpoint.paths, endpoint.world.program):
        return None
    item = Item(
        component=UPDATER,
        version=str(package.id.version),
        from_version=None if have is None else str(have),
        action=Action.UPDATE,
        sha256=_digest(files),
        record_id=endpoint.world.new_id(),
        old_folder=endpoint.installer.identity(UPDATER),
    )
    sequence = Sequence(endpoint.world.new_id(), "install", endpoint.world.clock.now(), (item,))
    entry = endpoint.journal.begin(sequence)
    _stage(endpoint, item, package_toml, package, files)
    entry = replace(entry, step=Step.COMMIT)
    endpoint.journal.write(entry)
    return endpoint.runner().run(entry)


def _stage(
    endpoint: Endpoint, item: Item, package_toml: str, package: PackageManifest, files: Mapping[str, Path]
) -> None:
    places = endpoint.installer.places(UPDATER)
    endpoint.installer.clean(UPDATER)
    program = program_in(Path(), package.id.platform.os).as_posix()
    with landing(places.new) as ground:
        for path, source in files.items():
            ground.file(tuple(path.split("/")), _pieces(source), 0o755 if path == program else 0o644)
        ground.sync()
    try:
        places.unpacked.mkdir(mode=PRIVATE_FOLDER)
        places.new.chmod(0o755)
    except OSError as error:
        raise local_failure(error, f"prepare {places.new}") from error
    durable.replace_file(places.unpacked / MANIFEST_NAME, package_toml.encode())
    keep_listing(listing_path(endpoint.paths, UPDATER, item.sha256), list_folder(places.new), package_toml)


def _digest(files: Mapping[str, Path]) -> str:
    """Return a digest of a build's files and their names: it has no archive of which there could be one."""
    whole = hashlib.sha256()
    for path, source in sorted(files.items()):
        one = hashlib.sha256()
        for piece in _pieces(source):
            one.update(piece)
        whole.update(f"{one.hexdigest()}  {path}\n".encode())
    return whole.hexdigest()


def _pieces(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
