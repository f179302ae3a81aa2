"""Reads ``.tar.gz`` strictly: one gzip member, one tar, nothing that two readers could take for different things (L41).

Own parsing instead of ``tarfile``, because that accepts and repairs far more than a package may be: POSIX and GNU
headers of regular files and folders, with long names by GNU ``L`` or pax ``path``; everything else is refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from agent.entries import PIECE, Entry, Kind, Member, bomb, damaged, forbidden
from repo_server.core.entrynames import PAX_IGNORED, PAX_IGNORED_FAMILIES, ArchiveLimits

MAGIC = b"\x1f\x8b"

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_MOST_PADDING = 1024 * 1024
_MOST_PAX_BYTES = 64 * 1024
_HEADER_SPARE = 64 * 1024
_USTAR, _GNU = b"ustar\x0000", b"ustar  \x00"
_GZIP_WINDOW = 31
_NAMED_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file",
    b"K": "a long link",
    b"g": "a global header",
}
_PAX_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ([^=\x00]{1,100})=")


def members(file: BinaryIO, archive_bytes: int, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the entries in order; raise ``PackageRefused`` at the first that may not be."""
    # Headers and padding come on top of the contents.
    most = limits.most_bytes_from(archive_bytes) + 4 * _BLOCK * limits.max_entries + _HEADER_SPARE
    stream = _Gunzip(file, most)
    long_name: str | None = None
    while (block := stream.take(_BLOCK)) != _ZEROS:
        header = _header(block)
        if header.type in {b"L", b"x"}:
            if long_name is not None:
                raise damaged("has two long names for one entry")
            long_name = _long_name(header, stream, limits)
            continue
        entry = _entry(header, long_name or None)
        long_name = None
        contents = _Contents(stream, entry.size)
        yield entry, contents.pieces()
        if contents.left:
            raise RuntimeError(f"{entry.name} was not taken before the next member")
        stream.take(-entry.size % _BLOCK)
    if long_name is not None:
        raise damaged("ends with a long name and no entry")
    stream.take_end()


@dataclass(frozen=True, slots=True)
class _Header:
    name: bytes
    type: bytes
    size: int
    mode: int


class _Gunzip:
    """The unpacked bytes of a gzip file with exactly one member; never more than ``most``."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._left = most
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        self._buffer = b""

    def some(self, most: int) -> bytes:
        """Return at least one and at most ``most`` bytes, or none at the end."""
        if not self._buffer:
            self._buffer = self._more()
        piece, self._buffer = self._buffer[:most], self._buffer[most:]
        return piece

    def take(self, size: int) -> bytes:
        """Return exactly ``size`` bytes."""
        if not size:
            return b""
        if len(self._buffer) >= size:
            return self.some(size)
        parts = []
        while size:
            piece = self.some(size)
            if not piece:
                raise damaged("is cut off")
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def take_end(self) -> None:
        """Check that nothing but the second zero block and padding follows."""
        if self.take(_BLOCK) != _ZEROS:
            raise damaged("has something after its end mark")
        padding = 0
        while piece := self.some(PIECE):
            padding += len(piece)
            if piece.strip(b"\0") or padding > _MOST_PADDING:
                raise damaged("has something after its end mark")

    def _more(self) -> bytes:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(PIECE)
            if not packed:
                raise damaged("is cut off")
            try:
                piece = self._inflate.decompress(packed, PIECE)
            except zlib.error as error:
                raise damaged(f"is not gzip or is damaged ({error})") from None
            self._left -= len(piece)
            if self._left < 0:
                raise bomb("unpacks to more than the limits on size and ratio allow")
            if piece:
                return piece
        if self._inflate.unused_data or self._file.read(1):
            raise damaged("has something after its gzip member, which some readers see and others do not")
        return b""


class _Contents:
    def __init__(self, stream: _Gunzip, size: int) -> None:
        self._stream = stream
        self.left = size

    def pieces(self) -> Iterator[bytes]:
        while self.left:
            piece = self._stream.some(min(self.left, PIECE))
            if not piece:
                raise damaged("is cut off")
            self.left -= len(piece)
            yield piece


def _header(block: bytes) -> _Header:
    magic = block[257:265]
    if magic not in {_USTAR, _GNU}:
        raise damaged("is not a tar in POSIX or GNU form")
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise damaged("has a header with a wrong checksum")
    name = _text(block[0:100])
    prefix = block[345:500]
    if magic == _USTAR:
        folder = _text(prefix)
        name = folder + b"/" + name if folder else name
    elif prefix.strip(b"\0"):
        # Some readers take it for a part of the name, some for times.
        raise damaged("has a GNU header with a prefix")
    kind = block[156:157]
    if kind in {b"0", b"\0", b"5"} and block[157:257].strip(b"\0"):
        raise forbidden(_shown(name), "has a link's target")
    return _Header(name, kind, _number(block[124:136]), _number(block[100:108]))


def _entry(header: _Header, long_name: str | None) -> Entry:
    name = long_name if long_name is not None else _decoded(header.name)
    if header.mode & 0o7000 and header.type in {b"0", b"\0", b"5"}:
        raise forbidden(name, "has setuid, setgid or sticky bits")
    if header.type == b"5":
        if header.size:
            raise forbidden(name, "is a folder with contents")
        return Entry(name.removesuffix("/"), Kind.FOLDER, 0, header.mode & 0o777)
    if header.type not in {b"0", b"\0"}:
        what = _NAMED_KINDS.get(header.type, f"of type {header.type!r}")
        raise forbidden(name, f"is {what}; a package has regular files and folders only")
    return Entry(name, Kind.FILE, header.size, header.mode & 0o777)


def _long_name(header: _Header, stream: _Gunzip, limits: ArchiveLimits) -> str:
    """Return the name for the next entry; "" if a pax header does not give one."""
    most = limits.max_path_bytes + 2 if header.type == b"L" else _MOST_PAX_BYTES
    if header.size > most:
        raise forbidden(_shown(header.name), f"has a header of {header.size} bytes; at most {most} are read")
    data = stream.take(header.size)
    stream.take(-header.size % _BLOCK)
    if header.type == b"x":
        return _pax_path(data)
    name = _decoded(data.removesuffix(b"\0"))
    if not name or "\0" in name:
        raise damaged("has a malformed long name")
    return name


def _pax_path(data: bytes) -> str:
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        match = _PAX_RECORD.match(data, at)
        end = at + int(match[1]) if match else 0
        if match is None or end > len(data) or end <= match.end() or data[end - 1 : end] != b"\n":
            raise damaged("has a malformed pax header")
        key = _decoded(match[2])
        if key in records:
            raise damaged(f"has the pax field {key!r} twice for one entry")
        records[key] = data[match.end() : end - 1]
        at = end
    for key in records:
        if key != "path" and key not in PAX_IGNORED and not key.startswith(PAX_IGNORED_FAMILIES):
            raise damaged(f"has the pax field {key!r:.80}, which a package may not have")
    path = _decoded(records.get("path", b""))
    if "path" in records and not path:
        raise damaged("has an empty pax path")
    return path


def _number(field: bytes) -> int:
    text = field.rstrip(b"\0 ").lstrip(b" ")
    if not re.fullmatch(rb"[0-7]{1,12}", text):
        raise damaged("has a header with a malformed number")
    return int(text, 8)


def _text(field: bytes) -> bytes:
    name, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        raise damaged("has something behind a name's end")
    return name


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise forbidden(_shown(name), "is not UTF-8") from None


def _shown(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
