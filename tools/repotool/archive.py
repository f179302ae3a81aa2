"""Archives, written so that the same input gives the same bytes, and read as far as ``package.toml`` (L40, L41)."""

from __future__ import annotations

import enum
import gzip
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from repo_server.core.package import MANIFEST_NAME, MAX_MANIFEST_BYTES, PackageManifest, parse_package_toml
from repotool.digests import CHUNK, Progress
from repotool.errors import ToolError
from repotool.source import Entry, Source

_TIME = (1980, 1, 1, 0, 0, 0)
"""Every entry's time: the earliest that a zip can say."""
_TIME_UNIX = 315532800
_LEVEL = 9
_UNIX = 3
_FOLDER_BIT = 0x10
_ZIP64_FROM = 2**31 - 1


UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError, RuntimeError,
    struct.error,
)  # fmt: skip
"""What the readers of the standard library raise for what they cannot read."""


class ArchiveFormat(enum.StrEnum):
    """What our own agent unpacks."""

    TAR_GZ = "tar.gz"
    ZIP = "zip"


def write_archive(source: Source, out: IO[bytes], kind: ArchiveFormat, progress: Progress) -> None:
    """Write a package; its bytes depend on names, contents and executable bits only."""
    if kind is ArchiveFormat.ZIP:
        _write_zip(source, out, progress)
    else:
        _write_tar(source, out, progress)


def read_manifest(path: Path) -> PackageManifest:
    """Return what an archive says of itself; raise ``ToolError`` or ``PackageInvalid`` (L40)."""
    try:
        data = _first_of_zip(path) if path.name.endswith(".zip") else _first_of_tar(path)
    except UNREADABLE as error:
        raise ToolError(f"{path} is not a readable archive ({error}); make it with `repotool pack`") from None
    if data is None:
        raise ToolError(
            f"{path} does not begin with a {MANIFEST_NAME} of at most {MAX_MANIFEST_BYTES} bytes (L40); "
            "make it with `repotool pack`"
        )
    return parse_package_toml(data)


def _write_tar(source: Source, out: IO[bytes], progress: Progress) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=out, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
    ):
        for entry in source.entries:
            info = tarfile.TarInfo(entry.path)
            info.mode, info.mtime, info.size = entry.mode, _TIME_UNIX, entry.size
            if entry.is_folder:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
                continue
            with _Unchanged(source.folder, entry, progress) as file:
                tar.addfile(info, file)


def _write_zip(source: Source, out: IO[bytes], progress: Progress) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for entry in source.entries:
            info = zipfile.ZipInfo(f"{entry.path}/" if entry.is_folder else entry.path, _TIME)
            info.create_system = _UNIX
            info.compress_type = zipfile.ZIP_STORED if entry.is_folder else zipfile.ZIP_DEFLATED
            kind = 0o040000 if entry.is_folder else 0o100000
            info.external_attr = (kind | entry.mode) << 16 | (_FOLDER_BIT if entry.is_folder else 0)
            if entry.is_folder:
                archive.writestr(info, b"")
                continue
            with (
                _Unchanged(source.folder, entry, progress) as file,
                archive.open(info, "w", force_zip64=entry.size > _ZIP64_FROM) as target,
            ):
                while chunk := file.read(CHUNK):
                    target.write(chunk)


class _Unchanged:
    """A file that is read once and must have the size that was seen when the folder was checked."""

    def __init__(self, folder: Path, entry: Entry, progress: Progress) -> None:
        self._path, self._progress = folder / entry.path, progress
        self._size = self._left = entry.size
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self._file = os.fdopen(descriptor, "rb")

    def __enter__(self) -> IO[bytes]:
        return self  # type: ignore[return-value]  # tarfile and zipfile only call read()

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            if kind is None and os.fstat(self._file.fileno()).st_size != self._size:
                raise self._changed()

    def read(self, count: int = CHUNK) -> bytes:
        data = self._file.read(min(count, self._left))
        if self._left and not data:
            raise self._changed()
        self._left -= len(data)
        self._progress(len(data))
        return data

    def _changed(self) -> ToolError:
        return ToolError(f"{self._path} changed while it was packed; pack again when nothing writes there")


def _first_of_tar(path: Path) -> bytes | None:
    with tarfile.open(path, "r|gz") as tar:
        first = tar.next()
        if first is None or first.name != MANIFEST_NAME or not first.isreg() or first.size > MAX_MANIFEST_BYTES:
            return None
        file = tar.extractfile(first)
        return None if file is None else file.read()


def _first_of_zip(path: Path) -> bytes | None:
    with zipfile.ZipFile(path) as archive:
        first = next(iter(archive.infolist()), None)
        if first is None or first.filename != MANIFEST_NAME or first.file_size > MAX_MANIFEST_BYTES:
            return None
        if first.flag_bits & 1:
            raise ToolError(f"{path} is encrypted; a package must not be")
        with archive.open(first) as file:
            return file.read(MAX_MANIFEST_BYTES)
