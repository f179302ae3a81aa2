"""Unpacking is strict, bounded and all or nothing (L40, L41, FR-CMP-003)."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.agent_archives import (
    FIRST,
    PACKAGE_TOML,
    PAYLOAD,
    RELEASE,
    ZIP_FIRST,
    ZIP_PAYLOAD,
    TarEntry,
    ZipEntry,
    pax,
    tar_bytes,
    write_tar_gz,
    write_zip,
    zip_bytes,
)

from agent import zipball
from agent.codes import Code
from agent.entries import safe_parts
from agent.errors import AgentError, LocalFailure, PackageRefused
from agent.unpack import unpack
from repo_server.core.entrynames import ArchiveLimits
from repo_server.core.model import Arch, Os, Platform, ReleaseId
from repo_server.core.version import Version

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


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_ordinary_tar_programs_are_unpacked(tmp_path: Path, form: int) -> None:
    """L40, L41: POSIX, pax and GNU tars, with long and non-ASCII names; bits become 0755 or 0644."""
    long = f"files/{'d' * 60}/{'ü' * 30}/f" if form != tarfile.USTAR_FORMAT else f"files/{'d' * 60}/{'u' * 60}/f"
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz", format=form) as tar:
        for name, data, mode in (
            ("package.toml", PACKAGE_TOML, 0o644),
            ("files/bin/serve", b"program", 0o775),
            ("files/secret", b"text", 0o600),
            (long, b"long", 0o644),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
        folder = tarfile.TarInfo("files/empty")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o777
        tar.addfile(folder)
    package = unpack(archive, tmp_path / "out", RELEASE)
    assert package.id == RELEASE
    assert content(tmp_path / "out") == {
        "package.toml": PACKAGE_TOML,
        "files/bin/serve": b"program",
        "files/secret": b"text",
        long: b"long",
    }
    modes = {
        name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in ("files/bin/serve", "files/secret")
    }
    assert modes == {"files/bin/serve": 0o755, "files/secret": 0o644}
    assert stat.S_IMODE((tmp_path / "out/files/empty").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_archives_of_an_ordinary_zip_program_are_unpacked(tmp_path: Path) -> None:
    """L40, L41: deflated, stored, streamed (with data descriptors), with folders and UTF-8 names."""

    class Unseekable(io.RawIOBase):
        """Makes zipfile write data descriptors, as it does for a pipe."""

        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, piece: bytes) -> int:  # type: ignore[override]
            self.data += piece
            return len(piece)

    streamed, seekable = Unseekable(), io.BytesIO()
    for number, target in enumerate((streamed, seekable)):
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("package.toml", PACKAGE_TOML, zipfile.ZIP_STORED)
            archive.mkdir("files")
            archive.writestr("files/größe", b"x" * 300_000)
            archive.writestr("files/empty", b"")
        data = bytes(streamed.data) if target is streamed else seekable.getvalue()
        path = tmp_path / f"{number}.zip"
        path.write_bytes(data)
        unpack(path, tmp_path / f"out{number}", RELEASE)
        assert content(tmp_path / f"out{number}") == {
            "package.toml": PACKAGE_TOML,
            "files/größe": b"x" * 300_000,
            "files/empty": b"",
        }


def test_an_archive_made_by_the_systems_tar_is_unpacked(tmp_path: Path) -> None:
    """The program that people really use, with its own header form."""
    source = tmp_path / "src"
    (source / "files").mkdir(parents=True)
    (source / "package.toml").write_bytes(PACKAGE_TOML)
    (source / "files" / ("n" * 150)).write_bytes(b"data")
    archive = tmp_path / "a.tar.gz"
    subprocess.run(["tar", "-C", source, "-czf", archive, "package.toml", "files"], check=True)
    unpack(archive, tmp_path / "out", RELEASE)
    assert content(tmp_path / "out") == content(source)


def test_modes_of_package_toml_set_permission_bits(tmp_path: Path) -> None:
    """L42: they match below the payload, the last match counts, and never more than 0755."""
    toml = PACKAGE_TOML + b'[modes]\n"bin/*" = "0777"\n"bin/key" = "0600"\n'
    archive = write_zip(
        tmp_path / "a.zip",
        ZipEntry(b"files/bin/serve", b"1", mode=0, system=0),
        ZipEntry(b"files/bin/key", b"2", mode=0, system=0),
        ZipEntry(b"files/other", b"3", mode=0, system=0),
        first=ZipEntry(b"package.toml", toml),
    )
    unpack(archive, tmp_path / "out", RELEASE)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out/files").rglob("*") if path.is_file()
    }
    assert modes == {"serve": 0o755, "key": 0o600, "other": 0o644}


TAR_FORBIDDEN = {
    "a symbolic link": [TarEntry(b"files/x", type=b"2", link=b"/etc/passwd")],
    "a hard link": [TarEntry(b"files/x", type=b"1", link=b"files/bin/serve")],
    "a character device": [TarEntry(b"files/x", type=b"3")],
    "a block device": [TarEntry(b"files/x", type=b"4")],
    "a FIFO": [TarEntry(b"files/x", type=b"6")],
    "a contiguous file": [TarEntry(b"files/x", type=b"7")],
    "a sparse file": [TarEntry(b"files/x", type=b"S")],
    "a global header": [TarEntry(b"files/x", pax(path="a").data, type=b"g")],
    "a long link": [TarEntry(b"././@LongLink", b"x\0", type=b"K")],
    "an unknown type": [TarEntry(b"files/x", type=b"Z")],
    "a file with a link's target": [TarEntry(b"files/x", link=b"/etc/passwd")],
    "an absolute path": [TarEntry(b"/etc/passwd")],
    "a parent folder": [TarEntry(b"files/../../x")],
    "a parent folder at the end": [TarEntry(b"files/..", type=b"5")],
    "a parent folder in the prefix": [TarEntry(b"x", prefix=b"files/..")],
    "an absolute prefix": [TarEntry(b"x", prefix=b"/etc")],
    "a current folder": [TarEntry(b"./files/x")],
    "an empty part": [TarEntry(b"files//x")],
    "an empty name": [TarEntry(b"")],
    "a file with a slash at the end": [TarEntry(b"files/x/")],
    "a backslash": [TarEntry(b"files\\..\\x")],
    "a drive letter": [TarEntry(b"C:/x")],
    "a line feed": [TarEntry(b"files/a\nb")],
    "a text direction mark": [TarEntry("files/\u202egpj.exe".encode())],
    "not UTF-8": [TarEntry(b"files/\xff")],
    "a dot at the end": [TarEntry(b"files/x.")],
    "a blank at the end": [TarEntry(b"files/x ")],
    "a blank at the start": [TarEntry(b"files/ x")],
    "a reserved name": [TarEntry(b"files/NUL")],
    "a reserved name with an extension": [TarEntry(b"files/com1.tar.gz")],
    "a reserved name with a blank": [TarEntry(b"files/con .txt")],
    "a reserved folder": [TarEntry(b"files/aux/x")],
    "the same file twice": [TarEntry(b"files/x"), TarEntry(b"files/x")],
    "package.toml twice": [FIRST],
    "package.toml in another case": [TarEntry(b"PACKAGE.TOML", b"x")],
    "the same folder twice": [TarEntry(b"files/d/", type=b"5"), TarEntry(b"files/d/", type=b"5")],
    "the same name in another case": [TarEntry(b"files/README"), TarEntry(b"files/readme")],
    "folders in another case": [TarEntry(b"files/Bin/x"), TarEntry(b"files/bin/y")],
    "the same name in another Unicode form": [TarEntry("files/é".encode()), TarEntry("files/e\u0301".encode())],
    "a file where a folder is": [TarEntry(b"files/d/x"), TarEntry(b"files/d")],
    "a folder where a file is": [TarEntry(b"files/d"), TarEntry(b"files/d/x")],
    "a folder with contents": [TarEntry(b"files/d/", b"x", type=b"5")],
    "a setuid file": [TarEntry(b"files/x", mode=0o4755)],
    "a setgid folder": [TarEntry(b"files/d/", type=b"5", mode=0o2755)],
    "a sticky file": [TarEntry(b"files/x", mode=0o1644)],
    "a long path": [TarEntry(b"././@LongLink", b"files/" + b"x/" * 300 + b"x\0", type=b"L"), TarEntry(b"files/x")],
    "a deep path": [TarEntry(b"files/" + b"/".join([b"d"] * 40))],
    "a long part": [pax(path=f"files/{'x' * 300}"), TarEntry(b"files/x")],
    "a pax path that leads out": [pax(path="../x"), TarEntry(b"files/x")],
    "a GNU long name that leads out": [TarEntry(b"././@LongLink", b"/etc/x\0", type=b"L"), TarEntry(b"files/x")],
    "a huge pax header": [TarEntry(b"x", b"", type=b"x", size=100_000)],
    "a link under a pax path": [pax(path="files/y"), TarEntry(b"files/x", type=b"2", link=b"/")],
}  # fmt: skip


@pytest.mark.parametrize("what", TAR_FORBIDDEN)
def test_a_tar_is_refused_for_an_entry_with(tmp_path: Path, what: str) -> None:
    """L41, each kind by itself; nothing is left."""
    refusal(write_tar_gz(tmp_path / "a.tar.gz", PAYLOAD, *TAR_FORBIDDEN[what]), Code.UNPACK_FORBIDDEN)


TAR_AMBIGUOUS = {
    "a pax size": [pax(size="0"), TarEntry(b"files/x")],
    "a pax link path": [pax(linkpath="/etc"), TarEntry(b"files/x")],
    "GNU sparse in pax": [pax(GNU__sparse__major="1"), TarEntry(b"files/x")],
    "another pax character set": [pax(hdrcharset="BINARY"), TarEntry(b"files/x")],
    "an empty pax path": [pax(path=""), TarEntry(b"files/x")],
    "two pax headers": [pax(path="files/y"), pax(path="files/z"), TarEntry(b"files/x")],
    "a pax field twice": [TarEntry(b"p", pax(path="files/y").data * 2, type=b"x"), TarEntry(b"files/x")],
    "a malformed pax record": [TarEntry(b"p", b"9999 path=x\n", type=b"x"), TarEntry(b"files/x")],
    "a pax record without its line feed": [TarEntry(b"p", b"9 path=x ", type=b"x"), TarEntry(b"files/x")],
    "a long name and a pax path": [TarEntry(b"L", b"files/y\0", type=b"L"), pax(path="files/z"), TarEntry(b"files/x")],
    "an empty long name": [TarEntry(b"L", b"\0", type=b"L"), TarEntry(b"files/x")],
    "a NUL within a long name": [TarEntry(b"L", b"files/y\0z\0", type=b"L"), TarEntry(b"files/x")],
    "a long name for nothing": [TarEntry(b"L", b"files/y\0", type=b"L")],
    "something behind the name": [TarEntry(b"files/x\0y")],
    "a wrong checksum": [TarEntry(b"files/x", checksum=1)],
    "an unknown form": [TarEntry(b"files/x", magic=bytes(8))],
    "a GNU header with a prefix": [TarEntry(b"x", magic=b"ustar  \0", prefix=b"files")],
    "a size that is cut off": [TarEntry(b"files/x", b"", size=10_000)],
}  # fmt: skip


@pytest.mark.parametrize("what", TAR_AMBIGUOUS)
def test_a_tar_is_refused_as_ambiguous_or_damaged_for(tmp_path: Path, what: str) -> None:
    """L41: what two readers could take for different things is not repaired but refused."""
    refusal(write_tar_gz(tmp_path / "a.tar.gz", PAYLOAD, *TAR_AMBIGUOUS[what]), Code.ARCHIVE_DAMAGED)


def test_a_gzip_is_refused_when_anything_follows_its_one_member(tmp_path: Path) -> None:
    """L41: concatenated members, trailing bytes and padding are read by some and ignored by others."""
    whole = write_tar_gz(tmp_path / "a.tar.gz", PAYLOAD).read_bytes()
    other = gzip.compress(tar_bytes([TarEntry(b"files/evil")]))
    for number, data in enumerate((whole + other, whole + b"x", whole + bytes(512), whole[:-1], whole[:-9])):
        archive = tmp_path / f"{number}.tar.gz"
        archive.write_bytes(data)
        refusal(archive, Code.ARCHIVE_DAMAGED)


def test_a_tar_is_refused_when_its_end_is_missing_or_something_follows_it(tmp_path: Path) -> None:
    """L41: data after the end mark, one zero block only, none, or a megabyte and more of padding."""
    evil = TarEntry(b"files/evil").to_bytes()
    for end in (b"", bytes(512), bytes(512) + evil, bytes(1024) + evil + bytes(1024), bytes(2 * 1024**2)):
        refusal(write_tar_gz(tmp_path / "a.tar.gz", PAYLOAD, end=end), Code.ARCHIVE_DAMAGED)
    unpack(write_tar_gz(tmp_path / "ok.tar.gz", PAYLOAD, end=bytes(10240)), tmp_path / "out", RELEASE)


def test_a_damaged_byte_anywhere_in_a_gzip_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Never another content than the right one, and nothing left after a refusal."""
    whole = bytearray(write_tar_gz(tmp_path / "a.tar.gz", PAYLOAD).read_bytes())
    right = {"package.toml": PACKAGE_TOML, "files/bin/serve": PAYLOAD.data}
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x41
        archive, into = tmp_path / "d.tar.gz", tmp_path / f"out{position}"
        archive.write_bytes(damaged)
        try:
            unpack(archive, into, RELEASE)
        except AgentError:
            assert not into.exists()
        else:
            assert content(into) == right


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


def test_package_toml_must_be_the_first_entry(tmp_path: Path) -> None:
    """L40."""
    payload_first = write_tar_gz(tmp_path / "a.tar.gz", FIRST, first=PAYLOAD)
    assert "first entry" in refusal(payload_first, Code.PACKAGE_INVALID).message
    (tmp_path / "empty.tar.gz").write_bytes(gzip.compress(bytes(1024)))
    refusal(tmp_path / "empty.tar.gz", Code.PACKAGE_INVALID)
    refusal(write_zip(tmp_path / "a.zip", ZIP_FIRST, first=ZIP_PAYLOAD), Code.PACKAGE_INVALID)


def test_a_malformed_or_huge_package_toml_is_refused(tmp_path: Path) -> None:
    """L40."""
    for toml in (b"", b"\xff", b"component = 1", PACKAGE_TOML + b"unknown = 1", PACKAGE_TOML + b"#" * 300_000):
        first = TarEntry(b"package.toml", toml)
        refusal(write_tar_gz(tmp_path / "a.tar.gz", PAYLOAD, first=first), Code.PACKAGE_INVALID)


def test_a_package_without_its_payload_folder_is_refused(tmp_path: Path) -> None:
    """L42."""
    for entry in (TarEntry(b"other/x"), TarEntry(b"files", b"a file"), TarEntry(b"FILES/x")):
        refusal(write_tar_gz(tmp_path / "a.tar.gz", entry), Code.PACKAGE_INVALID)


@pytest.mark.parametrize(
    "expected",
    [
        ReleaseId("ui", RELEASE.version, RELEASE.platform),
        ReleaseId("service", Version("1.2.4"), RELEASE.platform),
        ReleaseId("service", RELEASE.version, Platform(Os.WINDOWS, Arch.AMD64)),
        ReleaseId("service", RELEASE.version, Platform(Os.LINUX, Arch.ARM64)),
    ],
    ids=str,
)
def test_a_package_that_says_it_is_another_release_is_refused(tmp_path: Path, expected: ReleaseId) -> None:
    """L40: the signed bytes of one release under another one's name."""
    refusal(write_tar_gz(tmp_path / "a.tar.gz", PAYLOAD), Code.IDENTITY_MISMATCH, expected=expected)


def test_names_that_only_windows_forbids_are_refused_for_windows_only(tmp_path: Path) -> None:
    """L41."""
    toml = PACKAGE_TOML.replace(b"linux", b"windows")
    windows = ReleaseId("service", RELEASE.version, Platform(Os.WINDOWS, Arch.AMD64))
    entry = TarEntry(b"files/Foo::Bar.3pm")
    unpack(write_tar_gz(tmp_path / "l.tar.gz", entry), tmp_path / "linux", RELEASE)
    archive = write_tar_gz(tmp_path / "w.tar.gz", entry, first=TarEntry(b"package.toml", toml))
    refusal(archive, Code.UNPACK_FORBIDDEN, expected=windows)


def test_neither_gzip_nor_zip_is_refused(tmp_path: Path) -> None:
    """Also what is no file at all."""
    for data in (b"", b"x", b"\x1f\x8b", b"PK\x03\x04", b"\xfd7zXZ\x00" + bytes(100), os.urandom(1000)):
        (tmp_path / "a").write_bytes(data)
        refusal(tmp_path / "a", Code.ARCHIVE_DAMAGED)
    (tmp_path / "folder").mkdir()
    refusal(tmp_path / "folder", Code.ARCHIVE_DAMAGED)
    os.mkfifo(tmp_path / "fifo")
    refusal(tmp_path / "fifo", Code.ARCHIVE_DAMAGED)
    refusal(tmp_path / "absent", Code.IO)
    (tmp_path / "link").symlink_to(write_tar_gz(tmp_path / "ok.tar.gz", PAYLOAD))
    refusal(tmp_path / "link", Code.IO)


SMALL = ArchiveLimits(
    max_entries=20, max_total_bytes=2_000_000, max_file_bytes=1_000_000, max_ratio=10, ratio_from_bytes=100_000
)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """L41: by ratio, single size, total size and count; the disk never sees more than the limit."""
    bombs = {
        "ratio": [TarEntry(b"files/x", bytes(900_000))],
        "single": [TarEntry(b"files/x", os.urandom(1_000_001))],
        "total": [TarEntry(b"files/%d" % number, os.urandom(900_000)) for number in range(3)],
        "count": [TarEntry(b"files/%d" % number) for number in range(30)],
        "announced": [TarEntry(b"files/x", b"", size=7 * 1024**3)],
    }
    for entries in bombs.values():
        refusal(write_tar_gz(tmp_path / "a.tar.gz", *entries), Code.BOMB, SMALL)
    zips = {
        "ratio": [ZipEntry(b"files/x", bytes(900_000))],
        "single": [ZipEntry(b"files/x", os.urandom(1_000_001))],
        "count": [ZipEntry(b"files/%d" % number) for number in range(30)],
    }
    for members in zips.values():
        refusal(write_zip(tmp_path / "a.zip", *members), Code.BOMB, SMALL)


def test_a_bomb_of_headers_and_padding_is_refused(tmp_path: Path) -> None:
    """L41: bytes that unpack to no file count as well."""
    headers = [entry for _ in range(400) for entry in (pax(comment="x" * 60_000), TarEntry(b"files/x"))]
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(tar_bytes([FIRST, *headers[:1]]) + bytes(50_000_000)))
    assert refusal(archive, Code.ARCHIVE_DAMAGED, SMALL)
    pile = [FIRST, *(pax(comment="x" * 60_000) for _ in range(1))]
    unique = [entry for number in range(18) for entry in (pile[1], TarEntry(b"files/%d" % number))]
    archive.write_bytes(gzip.compress(tar_bytes([FIRST, *unique])))
    refusal(archive, Code.BOMB, SMALL)


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


def test_an_existing_folder_is_never_unpacked_into(tmp_path: Path) -> None:
    """What is in it stays as it is."""
    into = tmp_path / "out"
    into.mkdir()
    (into / "precious").write_text("x")
    with pytest.raises(LocalFailure):
        unpack(write_tar_gz(tmp_path / "a.tar.gz", PAYLOAD), into, RELEASE)
    assert (into / "precious").read_text() == "x"


def test_more_files_than_are_flushed_one_by_one_are_unpacked(tmp_path: Path) -> None:
    """They are made durable in one call."""
    entries = [TarEntry(b"files/%d/%d" % (number % 7, number), b"x") for number in range(100)]
    unpack(write_tar_gz(tmp_path / "a.tar.gz", *entries), tmp_path / "out", RELEASE)
    assert len(content(tmp_path / "out")) == 101


@pytest.mark.root
def test_a_disk_that_fills_while_unpacking_is_said_and_emptied(tmp_path: Path) -> None:
    """FR-UPD-008, EH-CLI-003: DISK_FULL, and nothing is left of it."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode()}")
    try:
        archive = write_tar_gz(tmp_path / "a.tar.gz", PAYLOAD, TarEntry(b"files/x", os.urandom(2_000_000)))
        with pytest.raises(LocalFailure) as caught:
            unpack(archive, disk / "out", RELEASE)
        assert caught.value.code is Code.DISK_FULL
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


_ODD = st.sampled_from(
    ["", ".", "..", "a", "A", "con", "é", "e\u0301", "x.", " y", "z ", "\\", "\0", "C:", "\u202e", "/"]
)
_NAMES = st.lists(st.one_of(_ODD, st.text(max_size=6)), min_size=1, max_size=5).map("/".join)


@given(name=_NAMES)
def test_an_accepted_path_stays_below_its_folder_on_every_system(name: str) -> None:
    """L41, by property: no accepted name resolves to anything outside, or to another spelling of itself."""
    for os_name in Os:
        try:
            parts = safe_parts(name, LIMITS, os_name)
        except PackageRefused:
            continue
        assert "/".join(parts) == name
        assert os.path.normpath(f"/base/{name}") == f"/base/{name}"
        assert not set("\\\0\n") & set(name)
        assert all(part.strip(" ") == part and not part.endswith(".") for part in parts)


@given(names=st.lists(st.tuples(_NAMES, st.booleans()), max_size=6), as_zip=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_names_an_archive_has_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, bool]], as_zip: bool
) -> None:
    """L41, by property, through the whole unpacker: all entries as named, or nothing."""
    base = tmp_path_factory.mktemp("property")
    encoded = [(name.encode(errors="surrogatepass"), folder) for name, folder in names]
    if as_zip:
        members = [
            ZipEntry(raw + b"/" * folder, mode=0o040755 if folder else 0o100644, flags=0x800) for raw, folder in encoded
        ]
        archive = write_zip(base / "a", ZIP_PAYLOAD, *members)
    else:
        entries = [TarEntry(raw[:99], type=b"5" if folder else b"0") for raw, folder in encoded]
        archive = write_tar_gz(base / "a", PAYLOAD, *entries)
    try:
        unpack(archive, base / "out", RELEASE)
    except AgentError:
        assert {path.name for path in base.iterdir()} == {"a"}
    else:
        assert {path.name for path in base.iterdir()} == {"a", "out"}
        assert all(not path.is_symlink() for path in (base / "out").rglob("*"))


@given(data=st.binary(max_size=600))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_arbitrary_bytes_in_an_archive_are_refused_with_a_code(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    """Never an exception that is not in the tree."""
    base = tmp_path_factory.mktemp("bytes")
    for number, whole in enumerate(
        (data, gzip.compress(data), b"PK\3\4" + data, gzip.compress(FIRST.to_bytes() + data))
    ):
        (base / f"{number}").write_bytes(whole)
        with pytest.raises(AgentError):
            unpack(base / f"{number}", base / "out", RELEASE)
        assert not (base / "out").exists()
