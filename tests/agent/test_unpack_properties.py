"""Whatever an archive says, nothing is written outside, and a refusal has a code (L41)."""

from __future__ import annotations

import gzip
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.agent_archives import (
    FIRST,
    LIMITS,
    PAYLOAD,
    RELEASE,
    ZIP_PAYLOAD,
    TarEntry,
    ZipEntry,
    write_tar_gz,
    write_zip,
)

from agent.entries import safe_parts
from agent.errors import AgentError, PackageRefused
from agent.unpack import unpack
from repo_server.core.model import Os

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
