"""Builds package archives, right ones and every kind of wrong one, header by header."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.codes import Code
from agent.errors import AgentError
from agent.unpack import unpack
from repo_server.core.entrynames import ArchiveLimits
from repo_server.core.model import Arch, Os, Platform, ReleaseId
from repo_server.core.version import Version

RELEASE = ReleaseId("service", Version("1.2.3"), Platform(Os.LINUX, Arch.AMD64))
PACKAGE_TOML = b'component = "service"\nversion = "1.2.3"\nos = "linux"\narch = "amd64"\n'


@dataclass(frozen=True)
class TarEntry:
    """One tar entry; every field of the header can be set wrongly."""

    name: bytes
    data: bytes = b""
    type: bytes = b"0"
    mode: int = 0o644
    size: int | None = None
    """``None``: that of ``data``."""
    magic: bytes = b"ustar\x0000"
    prefix: bytes = b""
    link: bytes = b""
    checksum: int | None = None

    def to_bytes(self) -> bytes:
        size = len(self.data) if self.size is None else self.size
        fields = [
            self.name.ljust(100, b"\0"), b"%07o\0" % self.mode, b"%07o\0" % 0, b"%07o\0" % 0, b"%011o\0" % size,
            b"%011o\0" % 0, b" " * 8, self.type, self.link.ljust(100, b"\0"), self.magic, b"\0" * 80,
            self.prefix.ljust(155, b"\0"), b"\0" * 12,
        ]  # fmt: skip
        block = b"".join(fields)
        assert len(block) == 512, len(block)
        checksum = sum(block) if self.checksum is None else self.checksum
        block = block[:148] + b"%06o\0 " % checksum + block[156:]
        return block + self.data + bytes(-len(self.data) % 512)


FIRST = TarEntry(b"package.toml", PACKAGE_TOML)
PAYLOAD = TarEntry(b"files/bin/serve", b"#!/bin/sh\n", mode=0o755)


def tar_bytes(entries: Iterable[TarEntry], end: bytes = bytes(1024)) -> bytes:
    """Return a tar of entries."""
    return b"".join(entry.to_bytes() for entry in entries) + end


def write_tar_gz(path: Path, *entries: TarEntry, end: bytes = bytes(1024), first: TarEntry = FIRST) -> Path:
    """Write a ``.tar.gz`` that begins with ``package.toml``."""
    path.write_bytes(gzip.compress(tar_bytes([first, *entries], end), mtime=0))
    return path


def pax(**records: str | bytes) -> TarEntry:
    """Return a pax header; ``__`` in a key stands for a dot."""
    lines = b""
    for key, value in records.items():
        rest = b" %s=%s\n" % (key.replace("__", ".").encode(), value.encode() if isinstance(value, str) else value)
        length = len(rest) + 1
        while len(b"%d" % length) + len(rest) != length:
            length += 1
        lines += b"%d" % length + rest
    return TarEntry(b"PaxHeaders/x", lines, type=b"x")


@dataclass(frozen=True)
class ZipEntry:
    """One zip entry; the local header and the directory can be made to differ."""

    name: bytes
    data: bytes = b""
    method: int = 8
    flags: int = 0
    mode: int = 0o100644
    system: int = 3
    attributes: int = 0
    """Of DOS."""
    local_name: bytes | None = None
    local_size: int | None = None
    size: int | None = None
    crc: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    packed_tail: bytes = b""
    offset: int | None = None
    descriptor: bytes | None = None
    gap: bytes = b""

    def packed(self) -> bytes:
        if self.method != 8:
            return self.data + self.packed_tail
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflate.compress(self.data) + deflate.flush() + self.packed_tail

    def facts(self) -> tuple[int, int, int]:
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        return crc, len(self.packed()), len(self.data) if self.size is None else self.size

    def local(self) -> bytes:
        name = self.name if self.local_name is None else self.local_name
        crc, packed, size = (0, 0, 0) if self.flags & 8 else self.facts()
        size = size if self.local_size is None else self.local_size
        header = struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, self.flags, self.method, 0, 33, crc, packed, size, len(name),
            len(self.local_extra),
        )  # fmt: skip
        behind = b"PK\7\x08" + struct.pack("<3L", *self.facts()) if self.flags & 8 else b""
        behind = behind if self.descriptor is None else self.descriptor
        return header + name + self.local_extra + self.packed() + behind + self.gap

    def central(self, offset: int) -> bytes:
        header = struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", self.system << 8 | 20, 20, self.flags, self.method, 0, 33, *self.facts(),
            len(self.name), len(self.extra), 0, 0, 0, self.mode << 16 | self.attributes,
            offset if self.offset is None else self.offset,
        )  # fmt: skip
        return header + self.name + self.extra


ZIP_FIRST = ZipEntry(b"package.toml", PACKAGE_TOML)
ZIP_PAYLOAD = ZipEntry(b"files/bin/serve", b"#!/bin/sh\n", mode=0o100755)


def zip_bytes(
    entries: Iterable[ZipEntry], *, before: bytes = b"", between: bytes = b"", comment: bytes = b"", count: int = 0
) -> bytes:
    """Return a zip of entries; ``count`` is added to the number of entries that its end announces."""
    body, directory, number = before, b"", 0
    for entry in entries:
        directory += entry.central(len(body))
        body += entry.local()
        number += 1
    number += count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, number, number, len(directory), len(body), len(comment))
    return body + directory + between + end + comment


def write_zip(path: Path, *entries: ZipEntry, first: ZipEntry = ZIP_FIRST) -> Path:
    """Write a ``.zip`` that begins with ``package.toml``."""
    path.write_bytes(zip_bytes([first, *entries]))
    return path


LIMITS = ArchiveLimits()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(archive: Path, code: Code, limits: ArchiveLimits = LIMITS, expected: ReleaseId = RELEASE) -> AgentError:
    """Unpack, expect a refusal with this code, and nothing left behind."""
    into = archive.parent / "out"
    with pytest.raises(AgentError) as caught:
        unpack(archive, into, expected, limits)
    assert caught.value.code is code, caught.value.message
    assert not into.exists()
    return caught.value
