"""What must be true of an endpoint after any fault and a recovery (promise 1)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crash.disk import Disk, Eyes
from crash.shop import Shop
from support.endpoints import Endpoint, tree_hash

from agent import durable
from agent.floor import load_floors
from agent.manifest import load_manifest
from agent.paths import Paths
from agent.quarantine import ATTEMPTS, load_quarantine
from agent.spool import Spool
from agent.status import OperationStatus, load_status
from repo_server.core.version import Version

FLOOR = Version("0.9.0")
UNCOUNTED = frozenset({"var/lib/commandit/updater.log", "var/lib/commandit/lock"})
"""What a recovery that has nothing to do may change: it says that it ran, and holds the lock."""
_DOWNLOAD = re.compile(r"[0-9a-f]{64}(\.part|\.etag)?")


@dataclass(frozen=True, slots=True)
class End:
    """A whole release set: what the manifest says, and what lies in the install folders."""

    installed: Mapping[str, str]
    trees: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, endpoint: Endpoint) -> End:
        """Return what an endpoint has."""
        root = endpoint.paths.install_root
        folders = [path.name for path in root.iterdir() if path.name[0] != "."] if root.exists() else []
        manifest = load_manifest(endpoint.paths.manifest).manifest
        installed = {name: str(component.version) for name, component in manifest.components.items()}
        return cls(installed, {name: tree_hash(root / name) for name in folders})


Ends = Mapping[str, End]
"""``old`` and ``new``, or what else a command may end in."""


def end_of(endpoint: Endpoint, ends: Ends) -> str | None:
    """Return which whole set an endpoint has, ``None`` if it is none."""
    found = End.of(endpoint)
    return next((name for name, end in ends.items() if end == found), None)


def held(endpoint: Endpoint) -> frozenset[str]:
    """Return the components that were given up as critical."""
    quarantine, _ = load_quarantine(endpoint.paths.state / ATTEMPTS)
    return frozenset(failure.component or "" for failure in quarantine.held)


def is_whole(endpoint: Endpoint, ends: Ends, *, critical: bool = False) -> Iterator[str]:
    """Yield what is wrong with the installed set; ``critical``: a component may be stopped if that is said."""
    found = End.of(endpoint)
    name = end_of(endpoint, ends)
    if name is None:
        yield f"no whole set: installed {dict(found.installed)}, {_differences(found, ends)}"
    stopped = held(endpoint)
    if stopped and not critical:
        yield f"given up as critical: {sorted(stopped)}"
    running = endpoint.processes()
    for component in sorted(found.installed.keys() | running.keys()):
        pids = running.get(component, [])
        if component in stopped:
            if pids:
                yield f"{component} is critical and runs"
        elif component not in found.installed:
            yield f"{component} is not installed and runs"
        elif not _runs_soon(endpoint, component):
            yield f"{component} does not run as it should: {pids}, then {endpoint.processes().get(component, [])}"


def _runs_soon(endpoint: Endpoint, component: str) -> bool:
    """Whether a component runs; for a moment, while it becomes its program, what was just started is nothing."""
    end = time.monotonic() + 5
    while not endpoint.runs_live(component):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def is_clean(endpoint: Endpoint) -> Iterator[str]:
    """Yield what was left behind."""
    paths, manifest = endpoint.paths, load_manifest(endpoint.paths.manifest)
    # What a person has to look at stays, and what could not be removed was moved aside.
    stays = {f".{name}" for name in held(endpoint)}
    for path in sorted(endpoint.root.rglob(".*")):
        if ".left-" not in path.name and path.name.rpartition(".")[0] not in stays:
            yield f"left behind: {path.relative_to(endpoint.root)}"
    for path in (paths.journal, paths.state / "removal.json"):
        if path.exists():
            yield f"left behind: {path.name}"
    lists = {f"{one.name}-{one.sha256}.json" for one in manifest.manifest.components.values()}
    there = {path.name for path in (paths.state / "files").glob("*")}
    if lists != there:
        yield f"lists of files: {sorted(there)}, expected {sorted(lists)}"
    for path in paths.downloads.glob("*"):
        if not _DOWNLOAD.fullmatch(path.name):
            yield f"left behind: downloads/{path.name}"


def says_the_truth(endpoint: Endpoint, *, floors: bool) -> Iterator[str]:
    """Yield what state files say and is not so; ``floors``: whether there were some."""
    paths = endpoint.paths
    floor, manifest, status = load_floors(paths.floor), load_manifest(paths.manifest), load_status(paths.status)
    for damage in (floor.damage, manifest.damage, status.damage):
        if damage is not None:
            yield f"damaged: {damage}"
    if floors and set(floor.lowest.values()) != {FLOOR}:
        yield f"the floor went down: {dict(floor.lowest)}"
    if status.status.last_operation_status is OperationStatus.IN_PROGRESS:
        yield "the status says that something is in progress"
    said = {one.name: one.version for one in status.status.installed_components}
    there = {name: str(one.version) for name, one in manifest.manifest.components.items()}
    if said != there:
        yield f"the status says {said}, installed is {there}"


def attempt_in_journal(paths: Paths) -> str | None:
    """Return which attempt is under way, as far as can be read."""
    for path in (paths.journal, paths.install_root / ".sequence.json"):
        payload = durable.load(path, fall_back=False).payload
        if payload is not None:
            sequence = payload.get("sequence", payload)
            return str(sequence["attempt_id"]) if path == paths.journal else None
    return None


def attempts_in_log(endpoint: Endpoint) -> frozenset[str]:
    """Return the attempts that the agent began on this disk, as its log has them."""
    lines = [json.loads(line) for line in endpoint.log().splitlines()]
    return frozenset(line["attempt_id"] for line in lines if line["message"] == "step")


def is_reported(
    endpoint: Endpoint, shop: Shop, begun: frozenset[str], end: str | None, until: float | None = None
) -> Iterator[str]:
    """Yield attempts without exactly one final report per component, in the spool or at the server."""
    waiting = [
        {"attempt": (record.details or {})["attempt_id"], "id": str(record.record_id),
         "component": record.component_name, "status": str(record.status), "all": (record.details or {})["sequence"]}
        for record in Spool(endpoint.paths.spool).pending().records
    ]  # fmt: skip
    for attempt in begun | {one["attempt"] for one in waiting}:
        records: dict[str, dict[str, Any]] = {one["id"]: one for one in waiting if one["attempt"] == attempt}
        expected = next((one["all"] for one in records.values()), None)
        for one in shop.told(attempt, until):
            records.setdefault(one["id"], one)
        found = sorted(one["component"] for one in records.values())
        if not found or len(set(found)) != len(found) or (expected is not None and found != sorted(expected)):
            yield f"attempt {attempt} is reported for {found}"
        statuses = {one["status"] for one in records.values()}
        if end == "new" and statuses != {"success"}:
            yield f"the new set is there, and the reports say {sorted(statuses)}"
        if end == "old" and "success" in statuses:
            yield f"the old set is there, and the reports say {sorted(statuses)}"


def state_of(endpoint: Endpoint) -> dict[str, tuple[object, ...]]:
    """Return everything that a second recovery must not change."""
    found: dict[str, tuple[object, ...]] = {
        path: (node.kind, node.mode, b"" if path in UNCOUNTED else node.data, node.target)
        for path, node in Disk.of(endpoint.root, Eyes()).walk()
    }
    found["programs"] = tuple(sorted((name, *pids) for name, pids in endpoint.processes().items()))
    return found


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return what differs between two states."""
    names = sorted(before.keys() | after.keys())
    return [f"recovering again changed {name}" for name in names if before.get(name) != after.get(name)]


def _differences(found: End, ends: Ends) -> str:
    said = []
    for component in sorted({name for end in ends.values() for name in end.trees} | found.trees.keys()):
        equal = [name for name, end in ends.items() if end.trees.get(component) == found.trees.get(component)]
        said.append(f"{component} is {' or '.join(equal) or 'neither'}")
    return ", ".join(said)


def only(wrong: Sequence[str]) -> str | None:
    """Return what is wrong as one line, ``None`` if nothing is."""
    return "; ".join(wrong) or None
