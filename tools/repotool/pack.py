"""``pack``: a folder with ``package.toml`` becomes an archive under its canonical name (FR-SRV-005, L40 to L44)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from repo_server.tree import treeio
from repotool.archive import ArchiveFormat, write_archive
from repotool.digests import Digest, Progress, digest, silent
from repotool.errors import Refused, ToolError, Usage
from repotool.portable import ratio_fault
from repotool.source import Source


@dataclass(frozen=True, slots=True)
class Packed:
    """The archive, and whether it was there already with the same bytes."""

    path: Path
    digest: Digest
    entries: int
    unchanged: bool


def archive_path(source: Source, out: Path, kind: ArchiveFormat) -> Path:
    """Return where the archive goes: ``out`` is a folder, or the archive under its only name; raise ``Usage``."""
    name = f"{source.manifest.id}.{kind}"
    if out.name == name and not out.is_dir():
        path = out
    elif out.name.endswith(tuple(f".{suffix}" for suffix in ArchiveFormat)) and not out.is_dir():
        raise Usage(f"the archive's name must be {name}, not {out.name}: package.toml says so; leave the name out")
    else:
        path = out / name
    if path.resolve().is_relative_to(source.folder.resolve()):
        raise Usage(f"{path} lies inside the folder that is packed; choose another place with -o")
    return path


def pack(source: Source, path: Path, kind: ArchiveFormat, *, force: bool, progress: Progress = silent) -> Packed:
    """Write the archive whole or not at all; other bytes under its name are only replaced by ``force``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = treeio.temporary_beside(path)
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            write_archive(source, file, kind, progress)
            file.flush()
            os.fsync(file.fileno())
        made = digest(temporary)
        bomb = ratio_fault(sum(entry.size for entry in source.entries), made.size)
        if bomb is not None:
            raise ToolError(f"{source.folder} cannot be packed: {bomb}")
        present = digest(path) if path.exists() else None
        if present == made:
            return Packed(path, made, len(source.entries), unchanged=True)
        if present is not None and not force:
            raise Refused(
                f"{path} exists with other bytes; a version is immutable once published: raise the version, or replace "
                "an unpublished file with --force"
            )
        treeio.publish(temporary, path)
        return Packed(path, made, len(source.entries), unchanged=False)
    finally:
        temporary.unlink(missing_ok=True)
