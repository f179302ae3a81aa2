"""The folder that a package is made from: what is in it, and everything that is wrong with it (L40 to L44)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repo_server.core.globs import matches
from repo_server.core.model import Os
from repo_server.core.package import MANIFEST_NAME, MAX_MANIFEST_BYTES, HealthKind, PackageManifest, ServiceKind
from repo_server.core.package import parse_package_toml as parse
from repotool.errors import ToolError
from repotool.portable import LIMITS, path_faults, size_faults

EXECUTABLE, PLAIN, FOLDER = 0o755, 0o644, 0o755
_MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder of the package; ``size`` in bytes, ``mode`` as it will be in the archive."""

    path: str
    is_folder: bool
    size: int
    mode: int


@dataclass(frozen=True, slots=True)
class Source:
    """A folder that was checked: its manifest, and its entries in the archive's order."""

    folder: Path
    manifest: PackageManifest
    entries: tuple[Entry, ...]


def read_source(folder: Path) -> Source:
    """Look through a package folder; raise ``ToolError`` with the list of all that is wrong (L41)."""
    if not folder.is_dir():
        raise ToolError(f"{folder} is not a folder; expected one with {MANIFEST_NAME} and the payload")
    try:
        data = (folder / MANIFEST_NAME).read_bytes()
    except FileNotFoundError:
        raise ToolError(f"{folder} has no {MANIFEST_NAME}; write one as repo_layout.md (L40) shows") from None
    if len(data) > MAX_MANIFEST_BYTES:
        raise ToolError(f"{folder / MANIFEST_NAME} is larger than {MAX_MANIFEST_BYTES} bytes")
    manifest = parse(data)
    entries, faults = _walk(folder, manifest)
    faults += path_faults((entry.path for entry in entries), manifest.id.platform.os)
    faults += size_faults((entry.path, entry.size) for entry in entries)
    faults += _missing(manifest, entries)
    if len(entries) > LIMITS.max_entries:
        faults.append(f"there are {len(entries)} files and folders; an archive holds at most {LIMITS.max_entries}")
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:_MAX_SHOWN])
        more = f"\n  … and {len(faults) - _MAX_SHOWN} more" if len(faults) > _MAX_SHOWN else ""
        raise ToolError(f"{folder} cannot be packed:{shown}{more}")
    return Source(folder, manifest, tuple(sorted(entries, key=_order)))


def _order(entry: Entry) -> tuple[bool, list[str]]:
    """Sort the manifest first, then by path, so that folders come before what is in them (L40)."""
    return entry.path != MANIFEST_NAME, entry.path.split("/")


def _walk(folder: Path, manifest: PackageManifest) -> tuple[list[Entry], list[str]]:
    entries, faults = [], []
    for item, path in _items(folder, ""):
        status = item.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            entries.append(Entry(path, is_folder=True, size=0, mode=FOLDER))
        elif stat.S_ISREG(status.st_mode):
            entries.append(Entry(path, is_folder=False, size=status.st_size, mode=_mode(manifest, path, status)))
        else:
            faults.append(f"{path!r}: is {_kind(status.st_mode)}; a package holds regular files and folders only")
    return entries, faults


def _items(folder: Path, prefix: str) -> Iterator[tuple[os.DirEntry[str], str]]:
    with os.scandir(folder) as listing:
        items = list(listing)
    for item in items:
        path = f"{prefix}{item.name}"
        yield item, path
        if item.is_dir(follow_symlinks=False):
            yield from _items(Path(item.path), f"{path}/")


def _mode(manifest: PackageManifest, path: str, status: os.stat_result) -> int:
    """Return permission bits that do not depend on the umask; ``[modes]`` decides, the last match counts (L42)."""
    below = path.removeprefix(f"{manifest.payload}/")
    if below != path:
        for glob, mode in reversed(manifest.modes):
            if matches(glob, below):
                return mode
    return EXECUTABLE if status.st_mode & stat.S_IXUSR else PLAIN


def _kind(mode: int) -> str:
    names = {stat.S_ISLNK: "a symbolic link", stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket"}
    return next((name for check, name in names.items() if check(mode)), "a device")


def _missing(manifest: PackageManifest, entries: list[Entry]) -> Iterator[str]:
    """Yield what ``package.toml`` names and the folder does not have."""
    by_path = {entry.path: entry for entry in entries}
    payload = by_path.get(manifest.payload)
    if payload is None or not payload.is_folder:
        yield f"payload: there is no folder {manifest.payload!r}"
        return
    yield from _service_faults(manifest, by_path)
    wanted = []
    if manifest.health.kind is HealthKind.COMMAND and "/" in manifest.health.command[0]:
        wanted.append(("health.command", manifest.health.command[0], f"{manifest.payload}/"))
    for name, command in (("pre_install", manifest.hooks.pre_install), ("post_install", manifest.hooks.post_install)):
        if command:
            wanted.append((f"hooks.{name}", command[0], ""))
    for what, program, below in wanted:
        # An absolute path is the endpoint's own program; whether it is there is not known here.
        if not program.startswith("/"):
            yield from _program_faults(what, by_path.get(f"{below}{program}"), f"{below}{program}", manifest)


def _service_faults(manifest: PackageManifest, by_path: dict[str, Entry]) -> Iterator[str]:
    """Yield what stands in the way of starting the program by its kind of service (L43)."""
    service, below = manifest.service, f"{manifest.payload}/"
    if service.kind is ServiceKind.NONE:
        return
    if service.kind is ServiceKind.SYSTEMD:
        unit = by_path.get(f"{below}systemd/{(service.name or '').removesuffix('.service')}.service")
        if unit is not None and not unit.is_folder:
            return
    if not service.command:
        need = f"the unit {below}systemd/{service.name}.service, or " if service.kind is ServiceKind.SYSTEMD else ""
        yield f'service.kind = "{service.kind}" needs {need}service.command'
        return
    program = service.command[0]
    # Of a program without a folder, systemd may find another one in its search path.
    if "/" in program or service.kind is not ServiceKind.SYSTEMD:
        yield from _program_faults("service.command", by_path.get(f"{below}{program}"), f"{below}{program}", manifest)


def _program_faults(what: str, entry: Entry | None, path: str, manifest: PackageManifest) -> Iterator[str]:
    if entry is None or entry.is_folder:
        yield f"{what}: there is no file {path!r}"
    elif manifest.id.platform.os is not Os.WINDOWS and not entry.mode & stat.S_IXUSR:
        yield f"{what}: {path!r} is not executable; run `chmod +x` or name it in [modes]"
