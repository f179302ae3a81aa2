"""Globs of ``package.toml`` (L42)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.globs import last_match, matches, matches_any

PART = st.text(st.characters(exclude_characters="/*?"), min_size=1, max_size=6)
PATH = st.lists(PART, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("etc/*.conf", "etc/a.conf", True),
        ("etc/*.conf", "etc/sub/a.conf", False),
        ("etc/*.conf", "other/etc/a.conf", False),
        ("etc/*.conf", "etc/.conf", True),
        ("etc/*.conf", "etc/aXconf", False),
        ("data/**", "data/a", True),
        ("data/**", "data/a/b/c", True),
        ("data/**", "data", False),
        ("data/**", "database/a", False),
        ("**", "a/b", True),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("**/x", "a/bx", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/c/d/b", True),
        ("a/**/b", "a/cb", False),
        ("a**b", "aXb", True),
        ("a**b", "a/b", False),
        ("file?", "file1", True),
        ("file?", "file", False),
        ("a?b", "a/b", False),
        ("[x]", "[x]", True),
        ("[x]", "x", False),
        ("A", "a", False),
        ("a", "a\n", False),
    ],
)
def test_a_glob_matches_within_its_folder_unless_it_has_two_stars(glob: str, path: str, expected: bool) -> None:
    assert matches(glob, path) is expected


@given(path=PATH)
def test_a_path_matches_itself_and_every_way_of_leaving_its_end_open(path: str) -> None:
    folder, _, name = path.rpartition("/")
    assert matches(path, path)
    assert matches("**", path)
    assert matches(f"**/{name}", path)
    assert matches(f"{folder}/*" if folder else "*", path)


def test_any_and_the_last_of_several_globs() -> None:
    assert matches_any(["a", "b/*"], "b/c")
    assert not matches_any([], "a")
    assert last_match([("*", 1), ("a*", 2), ("b", 3)], "ab") == 2
    assert last_match([("x", 1)], "y") is None
