"""Unpacks a package: strict, bounded, below one folder, all or nothing (L40, L41, FR-CMP-003)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from repo_server.core.model import ReleaseId
from repo_server.core.package import PackageManifest


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """Caps; an archive above one of them is refused as soon as that is seen (code BOMB)."""

    max_entries: int = 100_000
    max_total_bytes: int = 8 * 1024**3
    max_file_bytes: int = 4 * 1024**3
    max_ratio: int = 200
    """Unpacked bytes per byte of the archive; counts from ``ratio_from_bytes`` on."""
    ratio_from_bytes: int = 16 * 1024**2
    max_path_bytes: int = 512
    max_depth: int = 32


def unpack(archive: Path, into: Path, expected: ReleaseId, limits: UnpackLimits = UnpackLimits()) -> PackageManifest:
    """Unpack a ``.tar.gz`` or ``.zip`` (told by its content) into the new folder ``into``, durably.

    The folder then holds ``package.toml``, the payload folder and whatever else the archive has, e.g. hooks.
    ``into`` must not exist; its parent must. On any refusal nothing of it is left. Raises ``PackageRefused``
    (PACKAGE_INVALID, UNPACK_FORBIDDEN, ARCHIVE_DAMAGED, BOMB), ``TrustRefused`` (IDENTITY_MISMATCH) or
    ``LocalFailure`` (DISK_FULL, PERMISSION, IO).
    """
    raise NotImplementedError
