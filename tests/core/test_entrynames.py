"""What an entry of a package may be called (L41); property tests of both ends are in tests/tools/test_portable.py."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.entrynames import ArchiveLimits, folded, path_fault
from repo_server.core.model import Os

LIMITS = ArchiveLimits()


@pytest.mark.parametrize(
    ("path", "os", "why"),
    [
        ("a/b.txt", Os.WINDOWS, None),
        ("ünï/cödé", Os.LINUX, None),
        ("x" * 255, Os.LINUX, None),
        ("", Os.LINUX, "empty"),
        ("/etc/passwd", Os.LINUX, "absolute"),
        ("a//b", Os.LINUX, "empty"),
        ("a/../b", Os.LINUX, ".."),
        ("./a", Os.LINUX, "part"),
        ("a\\b", Os.LINUX, "backslash"),
        ("a\x00b", Os.LINUX, "control"),
        ("a\u202eb", Os.LINUX, "text-direction"),
        ("a\udcffb", Os.LINUX, "not UTF-8"),
        ("a.", Os.LINUX, "ends with a blank or dot"),
        (" a", Os.LINUX, "begins with a blank"),
        ("ä" * 128, Os.LINUX, "part longer than 255"),
        ("d/" * 32 + "d", Os.LINUX, "deeper than 32"),
        ("d/" * 300, Os.LINUX, "longer than 512"),
        ("bin/COM1.txt", Os.LINUX, "reserves"),
        ("nul", Os.MACOS, "reserves"),
        ("c:x", Os.LINUX, "drive"),
        ("a?", Os.WINDOWS, "Windows does not allow"),
        ("a?", Os.LINUX, None),
    ],
)
def test_a_path_is_safe_everywhere_or_says_why_not(path: str, os: Os, why: str | None) -> None:
    """L41."""
    fault = path_fault(path, os, LIMITS)
    assert (fault is None) == (why is None)
    assert why is None or why in (fault or "")


@given(st.text(max_size=20))
def test_folding_ignores_case_and_unicode_form_and_is_stable(text: str) -> None:
    """L41."""
    assert folded(folded(text)) == folded(text)
    assert folded(unicodedata.normalize("NFD", text)) == folded(unicodedata.normalize("NFC", text))


def test_small_archives_may_unpack_to_the_ratio_s_start_and_large_ones_to_the_cap() -> None:
    """L41."""
    assert LIMITS.most_bytes_from(1) == LIMITS.ratio_from_bytes
    assert LIMITS.most_bytes_from(1024**2) == LIMITS.max_ratio * 1024**2
    assert LIMITS.most_bytes_from(1024**4) == LIMITS.max_total_bytes
