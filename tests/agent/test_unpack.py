"""Unpacking is strict, bounded and all or nothing (L40, L41, FR-CMP-003)."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.agent_archives import (
    FIRST,
    PACKAGE_TOML,
    PAYLOAD,
    RELEASE,
    ZIP_FIRST,
    ZIP_PAYLOAD,
    TarEntry,
    ZipEntry,
    content,
    pax,
    refusal,
    tar_bytes,
    write_tar_gz,
    write_zip,
)

from agent.codes import Code
from agent.errors import LocalFailure
from agent.unpack import unpack
from repo_server.core.entrynames import ArchiveLimits
from repo_server.core.model import Arch, Os, Platform, ReleaseId
from repo_server.core.version import Version


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
