"""An archive that no agent unpacks is neither signed nor published, whoever made it (L41, promise 3)."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.operators import Shop

from agent.errors import AgentError
from agent.unpack import unpack
from repotool.signing import any_release_name

MANIFEST = 'component = "service"\nversion = "1.2.3"\nos = "linux"\narch = "amd64"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "files" / "bin").mkdir(parents=True)
    (folder / "package.toml").write_text(MANIFEST)
    (folder / "files" / "bin" / "serve").write_bytes(b"#!/bin/sh\n" * 2000)
    return folder


def gnu(*options: str, change: Callable[[Path], object] = lambda _: None) -> Callable[[Path, Path], None]:
    def make(folder: Path, archive: Path) -> None:
        change(folder)
        command = ["tar", "-C", folder, *options, "-czf", archive, "package.toml", "files"]
        subprocess.run(command, check=True, capture_output=True)

    return make


def zipped(method: int = zipfile.ZIP_DEFLATED, attributes: int = 0o100644) -> Callable[[Path, Path], None]:
    def make(folder: Path, archive: Path) -> None:
        with zipfile.ZipFile(archive, "w", method) as made:
            made.write(folder / "package.toml", "package.toml")
            info = zipfile.ZipInfo("files/x")
            info.external_attr = attributes << 16
            made.writestr(info, b"target")

    return make


def changed(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    def make(folder: Path, archive: Path) -> None:
        gnu()(folder, archive)
        archive.write_bytes(change(archive.read_bytes()))

    return make


def unfinished(folder: Path, archive: Path) -> None:
    """As a build does that forgets to close its tar."""
    tar = io.BytesIO()
    made = tarfile.open(fileobj=tar, mode="w")  # noqa: SIM115 -- that it stays open is the point
    made.add(folder / "package.toml", "package.toml")
    made.add(folder / "files", "files")
    archive.write_bytes(gzip.compress(tar.getvalue()))


GOOD = {
    "gnu": gnu("--format=gnu"),
    "pax": gnu("--format=pax"),
    "ustar": gnu("--format=ustar", "--owner=alice", "--group=staff"),
    "zip": zipped(),
}
BAD = {
    "v7": gnu("--format=v7"),
    "a link": gnu(change=lambda folder: (folder / "files" / "l").symlink_to("bin/serve")),
    "a hard link": gnu(change=lambda folder: (folder / "files" / "l").hardlink_to(folder / "files" / "bin" / "serve")),
    "setuid": gnu(change=lambda folder: (folder / "files" / "bin" / "serve").chmod(0o4755)),
    "two cases": gnu(change=lambda folder: (folder / "files" / "BIN").mkdir()),
    "a backslash": gnu(change=lambda folder: (folder / "files" / "a\\b").touch()),
    "no payload": gnu("--exclude=files"),
    "a pax field": gnu("--format=pax", "--pax-option=secret:=1"),
    "cut off": changed(lambda data: data[:-20]),
    "two members": changed(lambda data: data + gzip.compress(b"x")),
    "never closed": unfinished,
    "lzma": zipped(zipfile.ZIP_LZMA),
    "a link in a zip": zipped(attributes=0o120777),
    "setuid in a zip": zipped(attributes=0o104755),
}  # fmt: skip


def accepted(archive: Path, into: Path) -> bool:
    try:
        unpack(archive, into, any_release_name(archive.name).id)
    except AgentError:
        return False
    return True


def named(what: str, tmp_path: Path) -> Path:
    return tmp_path / f"service-linux-amd64-1.2.3.{'zip' if 'zip' in what or what == 'lzma' else 'tar.gz'}"


@pytest.mark.parametrize("what", GOOD)
def test_what_other_tools_pack_well_is_signed(shop: Shop, folder: Path, tmp_path: Path, what: str) -> None:
    archive = named(what, tmp_path)
    GOOD[what](folder, archive)
    assert accepted(archive, tmp_path / "unpacked")
    shop.run("sign", archive, "--key", shop.key)


@pytest.mark.parametrize("what", BAD)
def test_what_agents_refuse_is_not_signed(shop: Shop, folder: Path, tmp_path: Path, what: str) -> None:
    archive = named(what, tmp_path)
    BAD[what](folder, archive)
    assert not accepted(archive, tmp_path / "unpacked")
    done = shop.attempt("sign", archive, "--key", shop.key)
    assert done.returncode == 3, done.stderr
    assert b"repotool pack" in done.stderr
    assert not archive.with_name(f"{archive.name}.sig").exists()
