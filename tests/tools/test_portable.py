"""What ``repotool pack`` lets through, the agent unpacks: L41 and L42 from both ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.operators import Operator, package_folder

from agent.entries import Entry, Kind, Names
from agent.errors import PackageRefused
from agent.unpack import unpack
from repo_server.core.entrynames import ArchiveLimits
from repo_server.core.model import Os
from repo_server.core.names import parse_release_name
from repotool import portable

PARTS = st.one_of(
    st.sampled_from(["con", "COM1.txt", "nul .x", "a", "A", "ä", "a\u0308", "\u017f", "s", "x.", " x", "x ", "c:x"]),
    st.sampled_from(["a\\b", "a?", "\u202e"]),
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=6),
    st.sampled_from(["x" * 255, "ä" * 128, "d/" * 31 + "d"]),
)
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


def agent_refuses(paths: list[str], os: Os) -> bool:
    names = Names(ArchiveLimits(), os)
    try:
        for path in paths:
            names.admit(Entry(path, Kind.FILE, 0, None))
    except PackageRefused:
        return True
    return False


@given(st.lists(PATHS, min_size=1, max_size=3, unique=True), st.sampled_from(Os))
@example(["a"], Os.LINUX)
def test_what_the_agent_refuses_is_not_packed(paths: list[str], os: Os) -> None:
    """L41."""
    split = [path.split("/") for path in paths]
    everything = {"/".join(parts[:depth]) for parts in split for depth in range(1, len(parts) + 1)}
    refused = bool(list(portable.path_faults(sorted(everything), os)))
    clash = any(f"{path}/" in f"{other}/" for path in paths for other in paths if path != other)
    if not clash:
        assert refused == agent_refuses(paths, os)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_the_agent_unpacks_what_was_packed(operator: Operator, tmp_path: Path, kind: str) -> None:
    """L40 to L44: the same files, the same executable bits."""
    source = package_folder(tmp_path / "source", extra='[modes]\n"etc/*" = "0640"\n')
    for name in ("empty", "etc", "ünï cödé"):
        (source / "files" / name).mkdir()
    (source / "files" / "etc" / "a.conf").write_text("x")
    (source / "files" / "ünï cödé" / ("long" * 40)).write_bytes(bytes(range(256)) * 1000)
    archive = Path(operator.facts("pack", source, "-o", tmp_path, "--format", kind)["path"])
    manifest = unpack(archive, tmp_path / "unpacked", parse_release_name(archive.name).id)
    assert manifest.service.command == ("bin/serve",)
    packed = {path.relative_to(source): path.is_file() and path.read_bytes() for path in source.rglob("*")}
    unpacked = {
        path.relative_to(tmp_path / "unpacked"): path.is_file() and path.read_bytes()
        for path in (tmp_path / "unpacked").rglob("*")
    }
    assert unpacked == packed
    assert (tmp_path / "unpacked/files/bin/serve").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "unpacked/files/etc/a.conf").stat().st_mode & 0o777 == 0o640
