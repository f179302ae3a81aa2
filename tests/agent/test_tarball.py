"""What is refused of a tar and of its gzip: forbidden, ambiguous or damaged (L41)."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from support.agent_archives import (
    FIRST,
    PACKAGE_TOML,
    PAYLOAD,
    RELEASE,
    TarEntry,
    content,
    pax,
    refusal,
    tar_bytes,
    write_tar_gz,
)

from agent.codes import Code
from agent.errors import AgentError
from agent.unpack import unpack

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
