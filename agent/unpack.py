"""Unpacks a package: strict, bounded, below one folder, all or nothing (L40, L41, FR-CMP-003)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agent import tarball, zipball
from agent.codes import Code
from agent.entries import Entry, Kind, Member, Names, bomb, damaged
from agent.errors import PackageRefused, TrustRefused, local_failure
from agent.landing import Landing, landing
from agent.platform.files import FILES
from repo_server.core.entrynames import ArchiveLimits
from repo_server.core.errors import PackageInvalid
from repo_server.core.globs import last_match
from repo_server.core.model import ReleaseId
from repo_server.core.package import MANIFEST_NAME, MAX_MANIFEST_BYTES, PackageManifest, parse_package_toml

DEFAULT_LIMITS = ArchiveLimits()

_MASK = 0o755
_PROGRAM, _PLAIN = 0o755, 0o644


def unpack(archive: Path, into: Path, expected: ReleaseId, limits: ArchiveLimits = DEFAULT_LIMITS) -> PackageManifest:
    """Unpack a ``.tar.gz`` or ``.zip`` (told by its content) into the new folder ``into``, durably.

    The folder then holds ``package.toml``, the payload folder and whatever else the archive has, e.g. hooks.
    ``into`` must not exist; its parent must. On any refusal nothing of it is left. Raises ``PackageRefused``
    (PACKAGE_INVALID, UNPACK_FORBIDDEN, ARCHIVE_DAMAGED, BOMB), ``TrustRefused`` (IDENTITY_MISMATCH) or
    ``LocalFailure`` (DISK_FULL, PERMISSION, IO).
    """
    with _opened(archive) as (file, size):
        names = Names(limits, expected.platform.os)
        entries = _bounded(_members(file, size, limits), size, limits)
        with landing(into) as target:
            package = _manifest(entries, names, target, expected)
            for entry, pieces in entries:
                parts = names.admit(entry)
                if entry.kind is Kind.FOLDER:
                    target.folder(parts)
                else:
                    target.file(parts, pieces, _mode(entry, package))
            if not names.has_folder(package.payload):
                raise _invalid(f"says that the payload is {package.payload!r}, but the archive has no such folder")
            target.sync()
    return package


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file, through no link, and give it with its size; wrap what the disk says about it."""
    try:
        descriptor = FILES.open_at_once(archive)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise damaged("is not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file, status.st_size
        finally:
            os.close(descriptor)
    except OSError as error:
        raise local_failure(error, f"read {archive}") from error


def _members(file: BinaryIO, size: int, limits: ArchiveLimits) -> Iterator[Member]:
    start = file.read(4)
    file.seek(0)
    if start == zipball.MAGIC:
        return zipball.members(file, size, limits)
    if start.startswith(tarball.MAGIC):
        return tarball.members(file, size, limits)
    raise damaged("is neither .tar.gz nor .zip")


def _bounded(members: Iterator[Member], archive_bytes: int, limits: ArchiveLimits) -> Iterator[Member]:
    """Refuse by what the headers announce, before a byte of it is unpacked."""
    total, most = 0, limits.most_bytes_from(archive_bytes)
    for count, (entry, pieces) in enumerate(members, 1):
        total += entry.size
        if count > limits.max_entries:
            raise bomb(f"has more than {limits.max_entries} entries")
        if entry.size > limits.max_file_bytes:
            raise bomb(f"has a file of {entry.size} bytes; at most {limits.max_file_bytes} are unpacked")
        if total > most:
            raise bomb(f"of {archive_bytes} bytes unpacks to {total} or more; at most {most} are unpacked")
        yield entry, pieces


def _manifest(entries: Iterator[Member], names: Names, target: Landing, expected: ReleaseId) -> PackageManifest:
    """Read the first entry and hold it against what was signed (L40)."""
    entry, pieces = next(entries, (None, iter(())))
    if entry is None or entry.name != MANIFEST_NAME or entry.kind is not Kind.FILE:
        raise _invalid("is not the archive's first entry")
    if entry.size > MAX_MANIFEST_BYTES:
        raise _invalid(f"is larger than {MAX_MANIFEST_BYTES} bytes")
    data = b"".join(pieces)
    try:
        package = parse_package_toml(data)
    except PackageInvalid as error:
        raise PackageRefused(Code.PACKAGE_INVALID, error.message) from error
    if str(package.id) != str(expected):
        raise TrustRefused(
            Code.IDENTITY_MISMATCH, f"{MANIFEST_NAME} says that this is {package.id}; what was signed is {expected}"
        )
    target.file(names.admit(entry), [data], _PLAIN)
    return package


def _mode(entry: Entry, package: PackageManifest) -> int:
    """Return 0755 or 0644 by the archive's bits, or what ``[modes]`` says (L41, L42)."""
    below = f"{package.payload}/"
    chosen = last_match(package.modes, entry.name.removeprefix(below)) if entry.name.startswith(below) else None
    if chosen is not None:
        return chosen & _MASK
    return _PROGRAM if (entry.mode or 0) & 0o100 else _PLAIN


def _invalid(why: str) -> PackageRefused:
    return PackageRefused(Code.PACKAGE_INVALID, f"{MANIFEST_NAME} {why}")
