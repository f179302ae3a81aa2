"""What is refused of a zip: forbidden, ambiguous or damaged (L41)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.agent_archives import (
    LIMITS,
    PACKAGE_TOML,
    ZIP_FIRST,
    ZIP_PAYLOAD,
    ZipEntry,
    refusal,
    write_zip,
    zip_bytes,
)

from agent import zipball
from agent.codes import Code
from agent.errors import PackageRefused

ZIP_FORBIDDEN = {
    "a symbolic link": [ZipEntry(b"files/x", b"/etc/passwd", mode=0o120777)],
    "a device": [ZipEntry(b"files/x", mode=0o020644)],
    "a FIFO": [ZipEntry(b"files/x", mode=0o010644)],
    "a folder without a slash": [ZipEntry(b"files/d", mode=0o040755)],
    "a file with a slash": [ZipEntry(b"files/d/", mode=0o100644)],
    "a DOS folder without a slash": [ZipEntry(b"files/d", mode=0, attributes=0x10)],
    "a folder with contents": [ZipEntry(b"files/d/", b"x", mode=0o040755)],
    "setuid": [ZipEntry(b"files/x", mode=0o104755)],
    "encryption": [ZipEntry(b"files/x", b"x", flags=1)],
    "strong encryption": [ZipEntry(b"files/x", b"x", flags=0x40)],
    "a masked header": [ZipEntry(b"files/x", b"x", flags=0x2000)],
    "another method": [ZipEntry(b"files/x", b"x", method=12)],
    "zip64 sizes": [ZipEntry(b"files/x", extra=struct.pack("<2H", 1, 0))],
    "zip64 sizes in the local header": [ZipEntry(b"files/x", local_extra=struct.pack("<2H", 1, 0))],
    "a Unicode path": [ZipEntry(b"files/x", extra=struct.pack("<2H", 0x7075, 0))],
    "a malformed extra field": [ZipEntry(b"files/x", extra=b"\x55\x54\xff\xff")],
    "a cut extra field": [ZipEntry(b"files/x", local_extra=b"\x55\x54\x00")],
    "another local name": [ZipEntry(b"files/x", b"x", local_name=b"../../x")],
    "another local size": [ZipEntry(b"files/x", b"x", local_size=2)],
    "a wrong descriptor": [ZipEntry(b"files/x", b"x", flags=8, descriptor=bytes(12))],
    "no descriptor": [ZipEntry(b"files/x", b"x", flags=8, descriptor=b"")],
    "a gap behind it": [ZipEntry(b"files/x", b"x", gap=b"evil")],
    "a gap behind a descriptor": [ZipEntry(b"files/x", b"x", flags=8, gap=b"e")],
    "a name that is not UTF-8": [ZipEntry(b"files/\xff", flags=0x800)],
    "a name outside ASCII that is not marked": [ZipEntry("files/ü".encode())],
    "an absolute path": [ZipEntry(b"/etc/x")],
    "a parent folder": [ZipEntry(b"files/../../x")],
    "a backslash": [ZipEntry(b"files\\x")],
    "a NUL": [ZipEntry(b"files/x\0.txt")],
    "two slashes at the end": [ZipEntry(b"files/d//", mode=0o040755)],
    "the same name twice": [ZipEntry(b"files/x"), ZipEntry(b"files/x")],
    "the same name in another case": [ZipEntry(b"files/x"), ZipEntry(b"files/X")],
}  # fmt: skip


@pytest.mark.parametrize("what", ZIP_FORBIDDEN)
def test_a_zip_is_refused_for_an_entry_with(tmp_path: Path, what: str) -> None:
    """L41, each kind by itself; nothing is left."""
    refusal(write_zip(tmp_path / "a.zip", ZIP_PAYLOAD, *ZIP_FORBIDDEN[what]), Code.UNPACK_FORBIDDEN)


GOOD = [ZIP_FIRST, ZIP_PAYLOAD]

ZIP_AMBIGUOUS = {
    "something before it": zip_bytes(GOOD, before=b"PK\3\4 self-extracting"),
    "something before its directory's end": zip_bytes(GOOD, between=b"x"),
    "a comment": zip_bytes(GOOD, comment=b"PK\5\6"),
    "something behind it": zip_bytes(GOOD) + b"x",
    "more entries announced": zip_bytes(GOOD, count=1),
    "fewer entries announced": zip_bytes(GOOD, count=-1),
    "the number of entries of a zip64": zip_bytes(GOOD, count=0xFFFF - 2),
    "entries that overlap": zip_bytes([*GOOD, ZipEntry(b"files/x", b"x", offset=0)]),
    "wrong contents": zip_bytes([*GOOD, ZipEntry(b"files/x", b"x", crc=1)]),
    "more contents than announced": zip_bytes([*GOOD, ZipEntry(b"files/x", b"xyz", size=2)]),
    "fewer contents than announced": zip_bytes([*GOOD, ZipEntry(b"files/x", b"xyz", size=4)]),
    "something behind the contents": zip_bytes([*GOOD, ZipEntry(b"files/x", b"xyz", packed_tail=b"tail")]),
    "nothing but its end": zip_bytes([]),
    "a cut": zip_bytes(GOOD)[:-30],
}


@pytest.mark.parametrize("what", ZIP_AMBIGUOUS)
def test_a_zip_is_refused_as_ambiguous_or_damaged_for(tmp_path: Path, what: str) -> None:
    """L41: every byte must be accounted for, and the two lists of names must agree."""
    archive = tmp_path / "a.zip"
    archive.write_bytes(ZIP_AMBIGUOUS[what])
    if not archive.read_bytes().startswith(b"PK\3\4"):
        archive.write_bytes(b"PK\3\4" + bytes(26) + archive.read_bytes())
    refusal(archive, Code.ARCHIVE_DAMAGED)


def test_a_zip_that_lies_about_its_size_stops_at_the_announced_one(tmp_path: Path) -> None:
    """L41: the entry says 10 bytes and holds 50 million."""
    archive = write_zip(tmp_path / "a.zip", ZIP_PAYLOAD, ZipEntry(b"files/x", bytes(50_000_000), size=10))
    refusal(archive, Code.ARCHIVE_DAMAGED)
    taken: list[int] = []

    def take_all() -> None:
        with archive.open("rb") as file:
            for _, pieces in zipball.members(file, archive.stat().st_size, LIMITS):
                taken.extend(len(piece) for piece in pieces)

    with pytest.raises(PackageRefused):
        take_all()
    assert sum(taken) == len(PACKAGE_TOML) + len(ZIP_PAYLOAD.data)
