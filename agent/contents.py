"""What a package put into its install folder, path by path: kept at installation, compared by ``verify`` (design §8).

The list lies in the state folder under the component's name and its package's digest. So the list of a new version
stands beside that of the old one until the sequence ends, and the manifest says which of them counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from agent import durable
from agent.codes import Code
from agent.errors import LocalFailure, local_failure
from agent.paths import PRIVATE_FOLDER, Paths
from agent.platform.files import FILES
from repo_server.core.globs import matches_any

FOLDER = "files"
"""Of the lists, in the state folder."""
_KNOWN_KINDS = frozenset({"file", "folder"})


@dataclass(frozen=True, slots=True)
class Listed:
    """One path of a payload."""

    kind: str
    """``file`` or ``folder``; found on a disk also ``link`` and ``other``."""
    mode: int = 0
    """Permission bits of a file; those of folders are the machine's business."""
    size: int = 0
    sha256: str = ""


Listing = Mapping[str, Listed]
"""Path below the install folder, with ``/`` → what is there."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that is not as the package has it."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Compared:
    """An install folder beside its list."""

    missing: tuple[str, ...] = ()
    changed: tuple[Difference, ...] = ()
    extra: tuple[str, ...] = ()
    preserved: tuple[str, ...] = ()
    """Files that belong to the machine; they are not compared (L42)."""

    @property
    def same(self) -> bool:
        """Whether nothing is missing, changed or extra."""
        return not (self.missing or self.changed or self.extra)


def list_folder(folder: Path) -> Listing:
    """Return what lies in a folder, following no link; raise ``LocalFailure``."""
    try:
        return MappingProxyType(dict(_walk(folder)))
    except OSError as error:
        raise local_failure(error, f"list the files of {folder}") from error


def listing_path(paths: Paths, component: str, sha256: str) -> Path:
    """Return where the list of an installed package lies."""
    return paths.state / FOLDER / f"{component}-{sha256}.json"


def keep_listing(path: Path, listing: Listing, package_toml: str) -> None:
    """Write a list, and what the package says of itself, durably; raise ``LocalFailure``. Idempotent."""
    try:
        path.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        durable.sync_folder(path.parent.parent)
    except OSError as error:
        raise local_failure(error, f"make the folder {path.parent}") from error
    files = {name: _to_text(one) for name, one in listing.items()}
    durable.save(path, {"files": files, "package_toml": package_toml}, keep_previous=False)


def read_listing(path: Path) -> Listing:
    """Read a list; raise ``LocalFailure`` (STATE_DAMAGED) if there is none that is whole."""
    loaded = durable.load(path, fall_back=False)
    if loaded.payload is None:
        raise _unusable(loaded.damage or f"{path} is not there")
    try:
        return MappingProxyType({str(name): _from_text(text) for name, text in loaded.payload["files"].items()})
    except (KeyError, AttributeError, ValueError):
        raise _unusable(f"{path} has a form that is not known") from None


def read_package(path: Path) -> str:
    """Return the ``package.toml`` beside a list; raise ``LocalFailure`` (STATE_DAMAGED) if there is none."""
    loaded = durable.load(path, fall_back=False)
    text = None if loaded.payload is None else loaded.payload.get("package_toml")
    if not isinstance(text, str):
        raise _unusable(loaded.damage or f"{path} has no package.toml")
    return text


def drop_listings(paths: Paths, component: str, but: str | None) -> None:
    """Remove the lists of a component, except that of the package with the digest ``but``; raise ``LocalFailure``."""
    keep = None if but is None else listing_path(paths, component, but)
    for path in (paths.state / FOLDER).glob(f"{component}-*.json"):
        if path != keep:
            durable.remove(path)


def sweep_listings(paths: Paths, installed: Mapping[str, str]) -> None:
    """Remove the lists of packages that are not installed; raise ``LocalFailure``. ``installed``: component → digest.

    Of a component that the manifest does not know and whose folder is there, they stay: it may be adopted.
    """
    for path in (paths.state / FOLDER).glob("*-*.json"):
        component = path.name.partition("-")[0]
        if component in installed:
            drop_listings(paths, component, but=installed[component])
        elif not paths.install(component).exists():
            drop_listings(paths, component, but=None)


def compare(folder: Path, listing: Listing, globs: Sequence[str]) -> Compared:
    """Return how a folder differs from its list; what ``globs`` match is not compared. Raises ``LocalFailure``."""
    found = list_folder(folder)
    preserved = [path for path, one in found.items() if one.kind != "folder" and matches_any(globs, path)]
    watched = {path: one for path, one in listing.items() if not matches_any(globs, path)}
    return Compared(
        missing=tuple(sorted(watched.keys() - found.keys())),
        changed=tuple(
            Difference(path, why)
            for path, one in sorted(watched.items())
            if path in found and (why := _difference(one, found[path]))
        ),
        extra=tuple(sorted(_extra(found, listing, globs))),
        preserved=tuple(sorted(preserved)),
    )


def _extra(found: Listing, listing: Listing, globs: Sequence[str]) -> Iterator[str]:
    parents = {path.rpartition("/")[0] for path in found}
    for path, one in found.items():
        # A folder with something in it shows by that.
        if one.kind == "folder" and (path in parents or matches_any(globs, f"{path}/x")):
            continue
        if path not in listing and not matches_any(globs, path):
            yield path


def _difference(expected: Listed, found: Listed) -> str | None:
    if found.kind != expected.kind:
        return f"is a {found.kind}, expected a {expected.kind}"
    if found.size != expected.size:
        return f"has {found.size} bytes, expected {expected.size}"
    if found.sha256 != expected.sha256:
        return "has other content"
    if FILES.has_modes and found.mode != expected.mode:
        return f"has mode {found.mode:04o}, expected {expected.mode:04o}"
    return None


def _walk(folder: Path) -> Iterator[tuple[str, Listed]]:
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as found:
            entries = sorted(found, key=lambda item: item.name)
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if FILES.is_folder(entry):
                waiting.append(path)
                yield path, Listed("folder")
                continue
            # The program that runs in there may remove its own files while we look.
            with contextlib.suppress(FileNotFoundError):
                yield path, _look_at(Path(entry.path))


def _look_at(path: Path) -> Listed:
    status = path.lstat()
    if FILES.is_link(status):
        return Listed("link")
    if not stat.S_ISREG(status.st_mode):
        return Listed("other")
    with open(FILES.open_at_once(path), "rb") as file:  # noqa: PTH123 -- a descriptor
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Listed("file", stat.S_IMODE(status.st_mode), status.st_size, digest)


def _to_text(one: Listed) -> str:
    return f"{one.kind} {one.mode:04o} {one.size} {one.sha256}".rstrip()


def _from_text(text: str) -> Listed:
    kind, mode, size, *digest = text.split(" ")
    if kind not in _KNOWN_KINDS:
        raise ValueError(kind)
    return Listed(kind, int(mode, 8), int(size), *digest)


def _unusable(why: str) -> LocalFailure:
    return LocalFailure(Code.STATE_DAMAGED, f"{why}; reinstall the component, which makes the list anew")
