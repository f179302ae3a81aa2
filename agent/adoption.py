"""Takes over a component that lies in its folder already, as its package has it, without a download (FR-BST-002).

That is known from the list that was made of the verified package, under the digest that the offer names. It happens
when the manifest was lost, or came from an older backup than the folders. The program is started and checked in a
sequence of its own that begins behind the exchange; if that fails, the component is installed like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from agent import durable
from agent.codes import Code
from agent.contents import compare, listing_path, read_listing, read_package
from agent.endpoint import Endpoint
from agent.errors import LocalFailure, local_failure
from agent.journal import Entry, Sequence
from agent.manifest import Manifest
from agent.paths import PRIVATE_FOLDER
from agent.plan import Plan
from agent.steps import Step
from agent.units import unit_of
from repo_server.core.errors import FormatError
from repo_server.core.model import UPDATER
from repo_server.core.package import MANIFEST_NAME, PackageManifest, parse_package_toml
from repo_server.core.wire import Update


def adoptable(endpoint: Endpoint, plan: Plan, manifest: Manifest) -> Iterator[Update]:
    """Yield the updates whose files are all in place; what the manifest knows is never one. Raises ``LocalFailure``."""
    there = {name: component.version for name, component in manifest.components.items()}
    for update in plan.updates:
        # The agent itself is never taken on faith: it is staged, and on trial.
        package = None if update.name in {*there, UPDATER} else _package(endpoint, update)
        if package is None or not all(
            (have := there.get(needed.name)) is not None and have >= needed.min_version for needed in package.requires
        ):
            continue
        there[update.name] = package.id.version
        yield update


def adopt(endpoint: Endpoint, sequence: Sequence) -> Entry:
    """Start and check one component that ``adoptable`` gave, and write it into the manifest; return the end.

    Raises ``Stuck``, ``LocalFailure``. Killed anywhere, recovery finishes it or leaves the folder as it was.
    """
    (item,) = sequence.items
    entry = endpoint.journal.begin(sequence)
    endpoint.installer.clean(item.component)
    unpacked = endpoint.installer.places(item.component).unpacked
    try:
        unpacked.mkdir(mode=PRIVATE_FOLDER)
    except OSError as error:
        raise local_failure(error, f"make the folder {unpacked}") from error
    text = read_package(listing_path(endpoint.paths, item.component, item.sha256))
    durable.replace_file(unpacked / MANIFEST_NAME, text.encode())
    entry = replace(entry, step=Step.START)
    endpoint.journal.write(entry)
    endpoint.log.info("a component is adopted without a download", component=item.component, to_version=item.version)
    return endpoint.runner().run(entry)


def _package(endpoint: Endpoint, update: Update) -> PackageManifest | None:
    path = listing_path(endpoint.paths, update.name, update.hash_sha256)
    live = endpoint.paths.install(update.name)
    if not path.exists() or not live.is_dir() or live.is_symlink():
        return None
    try:
        package = parse_package_toml(read_package(path).encode())
        found = compare(live, read_listing(path), package.preserve)
        unit_of(endpoint.paths, package, endpoint.config.service_manager)
    except (LocalFailure, FormatError) as error:
        endpoint.log.warning("not adopted", code=Code.STATE_DAMAGED, component=update.name, error=error.message)
        return None
    named = (package.id.component, str(package.id.version)) == (update.name, update.version)
    return package if found.same and named else None
