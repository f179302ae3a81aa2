"""Reads ``.zip`` strictly: directory and local headers must say the same, and every byte is accounted for (L41).

Own parsing instead of ``zipfile``, because a zip has its names twice and readers disagree on which counts: here the
entries must lie one after the other from the first byte to the directory, in its order, without gaps or overlaps.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from agent.entries import PIECE, Entry, Kind, Member, bomb, damaged, forbidden
from repo_server.core.entrynames import ArchiveLimits

MAGIC = b"PK\x03\x04"

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_DESCRIPTOR = struct.Struct("<3L")
_DESCRIPTOR_MAGIC = b"PK\x07\x08"
_STORED, _DEFLATED = 0, 8
_FLAG_DESCRIPTOR, _FLAG_UTF8, _FLAGS_LEVEL = 0x0008, 0x0800, 0x0006
_MOST_DIRECTORY_BYTES = 64 * 1024**2
_EXTRA_REFUSED = {0x0001: "zip64 sizes", 0x7075: "a second name", 0x6375: "a second comment", 0x9901: "encryption"}
_DOS_FOLDER = 0x10
_ZIP64_COUNT, _ZIP64_SIZE = 0xFFFF, 0xFFFFFFFF
_UNIX_SYSTEMS = frozenset({3, 19})


@dataclass(frozen=True, slots=True)
class _Record:
    """What the directory says of an entry."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    system: int
    attributes: int


def members(file: BinaryIO, archive_bytes: int, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the entries in order; raise ``PackageRefused`` at the first that may not be."""
    directory = _directory_bounds(file, archive_bytes, limits)
    records = list(_records(file, *directory))
    ends = [record.offset for record in records[1:]] + [directory[0]]
    if not records or records[0].offset != 0:
        raise damaged("does not begin with its first entry")
    for record, end in zip(records, ends, strict=True):
        entry = _entry(record)
        start = _check_local(file, record, end)
        if entry.kind is Kind.FOLDER:
            yield entry, iter(())
            continue
        contents = _Contents(file, record, start)
        yield entry, contents.pieces()
        if not contents.taken:
            raise RuntimeError(f"{entry.name} was not taken before the next member")


def _directory_bounds(file: BinaryIO, archive_bytes: int, limits: ArchiveLimits) -> tuple[int, int, int]:
    """Return the directory's offset, size and number of entries."""
    if archive_bytes < _END.size:
        raise damaged("is cut off")
    file.seek(archive_bytes - _END.size)
    fields = _END.unpack(_exactly(file, _END.size))
    magic, disk, first_disk, on_disk, count, size, offset, comment = fields
    if magic != b"PK\x05\x06" or comment:
        raise damaged("does not end with its directory (cut off, or with a comment or other data behind it)")
    if disk or first_disk or on_disk != count or count == _ZIP64_COUNT or _ZIP64_SIZE in {size, offset}:
        raise damaged("is a zip of several parts or a zip64; use .tar.gz for what is so large")
    if offset + size != archive_bytes - _END.size:
        raise damaged("has something between its directory and its end")
    if count > limits.max_entries or size > _MOST_DIRECTORY_BYTES:
        raise bomb(f"has {count} entries; at most {limits.max_entries} are unpacked")
    return offset, size, count


def _records(file: BinaryIO, offset: int, size: int, count: int) -> Iterator[_Record]:
    file.seek(offset)
    data = _exactly(file, size)
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > size:
            raise damaged("has a directory that is cut off")
        (magic, made_by, _needed, flags, method, _time, _date, crc, packed, length, name_size, extra_size, comment_size,
         disk, _internal, attributes, start) = _CENTRAL.unpack_from(data, at)  # fmt: skip
        names = at + _CENTRAL.size
        at = names + name_size + extra_size + comment_size
        if magic != b"PK\x01\x02" or disk or at > size:
            raise damaged("has a malformed directory")
        name = data[names : names + name_size]
        _check_extra(name, data[names + name_size : names + name_size + extra_size])
        yield _Record(name, flags, method, crc, packed, length, start, made_by >> 8, attributes)
    if at != size:
        raise damaged("has a directory with more than its entries")


def _check_local(file: BinaryIO, record: _Record, end: int) -> int:
    """Check that the local header says what the directory says; return where the contents begin."""
    name = record.name
    if record.offset + _LOCAL.size > end:
        raise damaged("has entries that overlap")
    file.seek(record.offset)
    (magic, _needed, flags, method, _time, _date, crc, packed, size, name_size, extra_size) = _LOCAL.unpack(
        _exactly(file, _LOCAL.size)
    )
    local_name, extra = _exactly(file, name_size), _exactly(file, extra_size)
    if magic != MAGIC or local_name != name or (flags, method) != (record.flags, record.method):
        raise forbidden(_shown(name), "is named or described in two different ways")
    _check_extra(name, extra)
    start: int = record.offset + _LOCAL.size + name_size + extra_size
    facts = (record.crc, record.packed, record.size)
    if not record.flags & _FLAG_DESCRIPTOR:
        if (crc, packed, size) != facts or start + record.packed != end:
            raise forbidden(_shown(name), "has two different sizes, or something behind it")
        return start
    if (crc, packed, size) not in {facts, (0, 0, 0)}:
        raise forbidden(_shown(name), "has two different sizes")
    if not 0 <= end - start - record.packed <= _DESCRIPTOR.size + len(_DESCRIPTOR_MAGIC):
        raise forbidden(_shown(name), "has something behind it")
    file.seek(start + record.packed)
    behind = _exactly(file, end - start - record.packed)
    if behind not in {_DESCRIPTOR.pack(*facts), _DESCRIPTOR_MAGIC + _DESCRIPTOR.pack(*facts)}:
        raise forbidden(_shown(name), "has something behind it")
    return start


def _entry(record: _Record) -> Entry:
    name = _decoded(record)
    if record.flags & ~(_FLAG_DESCRIPTOR | _FLAG_UTF8 | _FLAGS_LEVEL):
        raise forbidden(name, "is encrypted, patched or strongly compressed")
    if record.method not in {_STORED, _DEFLATED}:
        raise forbidden(name, f"is compressed by method {record.method}; expected stored or deflated")
    mode = record.attributes >> 16
    kind, is_folder = stat.S_IFMT(mode), name.endswith("/")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise forbidden(name, "is a link or device; a package has regular files and folders only")
    says_folder = kind == stat.S_IFDIR or bool(record.attributes & _DOS_FOLDER)
    if (says_folder and not is_folder) or (kind == stat.S_IFREG and is_folder):
        raise forbidden(name, "is a file and a folder at once")
    if is_folder and (record.size or record.packed or record.crc):
        raise forbidden(name, "is a folder with contents")
    if mode & 0o7000:
        raise forbidden(name, "has setuid, setgid or sticky bits")
    bits = mode & 0o777 if record.system in _UNIX_SYSTEMS and mode & 0o777 else None
    return Entry(name.removesuffix("/"), Kind.FOLDER if is_folder else Kind.FILE, record.size, bits)


class _Contents:
    def __init__(self, file: BinaryIO, record: _Record, start: int) -> None:
        self._file = file
        self._record = record
        self._start = start
        self.taken = False

    def pieces(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        crc, size = 0, 0
        for piece in self._unpacked():
            crc, size = zlib.crc32(piece, crc), size + len(piece)
            if size > self._record.size:
                break
            yield piece
        if (crc, size) != (self._record.crc, self._record.size):
            raise damaged("has an entry with other contents than announced")
        self.taken = True

    def _packed(self) -> Iterator[bytes]:
        left = self._record.packed
        while left:
            piece = self._file.read(min(left, PIECE))
            if not piece:
                raise damaged("is cut off")
            left -= len(piece)
            yield piece

    def _unpacked(self) -> Iterator[bytes]:
        if self._record.method == _STORED:
            yield from self._packed()
            return
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        for packed in self._packed():
            rest = packed
            while rest:
                try:
                    piece = inflate.decompress(rest, PIECE)
                except zlib.error as error:
                    raise damaged(f"has damaged contents ({error})") from None
                if inflate.unused_data:
                    raise damaged("has something behind an entry's contents")
                rest = inflate.unconsumed_tail
                yield piece
        tail = inflate.flush()
        if not inflate.eof:
            raise damaged("has contents that are cut off")
        yield tail


def _check_extra(name: bytes, extra: bytes) -> None:
    at = 0
    while at < len(extra):
        if at + 4 > len(extra):
            raise forbidden(_shown(name), "has a malformed extra field")
        tag, size = struct.unpack_from("<2H", extra, at)
        at += 4 + size
        if tag in _EXTRA_REFUSED:
            raise forbidden(_shown(name), f"has {_EXTRA_REFUSED[tag]}, which a package may not have")
    if at != len(extra):
        raise forbidden(_shown(name), "has a malformed extra field")


def _decoded(record: _Record) -> str:
    try:
        # Without the flag it is code page 437 for some readers and UTF-8 for others; ASCII is both.
        return record.name.decode("utf-8" if record.flags & _FLAG_UTF8 else "ascii")
    except UnicodeDecodeError:
        raise forbidden(_shown(record.name), "is not UTF-8, or not marked as such") from None


def _shown(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise damaged("is cut off")
    return data
