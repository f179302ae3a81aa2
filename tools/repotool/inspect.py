"""Looks through a whole archive, so that nothing is signed or published that every agent refuses (L41).

Archives that `repotool pack` made pass by construction; those of tar, zip and build systems may hold links, setuid
bits or be cut off. The agent's own reader is stricter in details; what people and tools really get wrong is found here.
"""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from repo_server.core.entrynames import PAX_IGNORED, PAX_IGNORED_FAMILIES
from repo_server.core.model import Os
from repotool import portable
from repotool.digests import CHUNK

_GZIP_WINDOW = 31
_BLOCK = 512
_MAGIC = slice(257, 262)
_UTF8, _ENCRYPTED = 0x800, 0x1
_EXTRA_REFUSED = {0x0001: "zip64 sizes", 0x7075: "a second name", 0x6375: "a second comment", 0x9901: "encryption"}
_SPECIAL_BITS = 0o7000


def archive_faults(path: Path, os: Os, payload: str) -> Iterator[str]:
    """Yield a sentence for each reason why agents would refuse an archive; ``payload`` is its ``package.toml``'s.

    Raises what ``tarfile``, ``zipfile`` and ``zlib`` raise for an archive that cannot be read.
    """
    names: list[tuple[str, bool, int]] = []
    yield from _zip_faults(path, names) if path.name.endswith(".zip") else _tar_faults(path, names)
    yield from portable.path_faults((name for name, _, _ in names), os)
    yield from portable.size_faults((name, size) for name, _, size in names)
    ratio = portable.ratio_fault(sum(size for _, _, size in names), path.stat().st_size)
    if ratio is not None:
        yield ratio
    seen: set[str] = set()
    for name, _, _ in names:
        if name in seen:
            yield f"{name!r:.120} is in the archive twice"
        seen.add(name)
    if not any(name.startswith(f"{payload}/") or (name == payload and folder) for name, folder, _ in names):
        yield f"payload = {payload!r:.120} is not a folder of the archive"


class _OneMember:
    """The unpacked bytes of the one gzip member that a package is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._inflate, self._buffer = file, zlib.decompressobj(_GZIP_WINDOW), b""
        self._tail = b""

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(CHUNK)
            if not packed:
                raise EOFError("it is cut off")
            self._buffer += self._inflate.decompress(packed, CHUNK)
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        self._tail = (self._tail + piece)[-2 * _BLOCK :]
        return piece

    def end_fault(self) -> str | None:
        """Say what is wrong behind the last entry, if anything is."""
        while piece := self.read(CHUNK):
            if piece.strip(b"\0"):
                return "something follows behind the archive's end mark"
        if self._tail.strip(b"\0"):
            return "it is cut off: its end mark is missing"
        return "something follows behind the gzip member" if self._inflate.unused_data or self._file.read(1) else None


def _tar_faults(path: Path, names: list[tuple[str, bool, int]]) -> Iterator[str]:
    with path.open("rb") as file:
        if _OneMember(file).read(_BLOCK)[_MAGIC] != b"ustar":
            yield "it is not a tar in POSIX or GNU form; with GNU tar: --format=gnu"
            return
        file.seek(0)
        stream = _OneMember(file)
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]  # it only reads
            for info in tar:
                names.append((info.name, info.isdir(), info.size))
                yield from _member_faults(info)
        fault = stream.end_fault()
        if fault is not None:
            yield fault


def _member_faults(info: tarfile.TarInfo) -> Iterator[str]:
    if info.type not in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE} or info.issparse():
        yield f"{info.name!r:.120} is a link, device or sparse file; a package has regular files and folders only"
    if info.mode & _SPECIAL_BITS:
        yield f"{info.name!r:.120} has setuid, setgid or sticky bits"
    for key in info.pax_headers:
        if key != "path" and key not in PAX_IGNORED and not key.startswith(PAX_IGNORED_FAMILIES):
            yield f"{info.name!r:.120} has the pax field {key!r:.80}; with GNU tar: --format=gnu"


def _zip_faults(path: Path, names: list[tuple[str, bool, int]]) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        readable = True
        for info in infos:
            names.append((info.orig_filename.removesuffix("/"), info.is_dir(), info.file_size))
            for fault in _entry_faults(info):
                readable = False
                yield f"{info.orig_filename!r:.120} {fault}"
        if infos and infos[0].header_offset:
            yield "something stands before the archive's first entry"
        damaged = archive.testzip() if readable else None
        if damaged is not None:
            yield f"{damaged!r:.120} is damaged"


def _entry_faults(info: zipfile.ZipInfo) -> Iterator[str]:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        yield "is a link or device; a package has regular files and folders only"
    if mode & _SPECIAL_BITS:
        yield "has setuid, setgid or sticky bits"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        yield f"is compressed by method {info.compress_type}; expected stored or deflated"
    if info.flag_bits & _ENCRYPTED:
        yield "is encrypted"
    if not info.orig_filename.isascii() and not info.flag_bits & _UTF8:
        yield "is not marked as UTF-8"
    at = 0
    while at + 4 <= len(info.extra):
        tag, size = struct.unpack_from("<HH", info.extra, at)
        if tag in _EXTRA_REFUSED:
            yield f"has {_EXTRA_REFUSED[tag]}, which a package may not have"
        at += 4 + size
