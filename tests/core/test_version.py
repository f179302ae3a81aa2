"""Versions follow SemVer 2.0 without build metadata (L5)."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from pathlib import Path

import pytest
from core.making import refusal, version_texts, versions
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.errors import VersionInvalid
from repo_server.core.version import MAX_LENGTH, Version

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "semver.json").read_text())


@pytest.mark.parametrize("chain", VECTORS["precedence"], ids=" < ".join)
def test_the_specifications_own_precedence_examples_hold(chain: list[str]) -> None:
    """SemVer §11, L5."""
    parsed = [Version(text) for text in chain]
    for lower, higher in itertools.combinations(parsed, 2):
        assert lower < higher
        assert lower <= higher
        assert higher > lower
        assert higher >= lower
        assert lower != higher
    backwards = parsed[::-1]
    assert sorted(backwards) == parsed


@pytest.mark.parametrize("text", VECTORS["valid"])
def test_every_official_valid_version_is_accepted_as_it_stands(text: str) -> None:
    assert str(Version(text)) == text


@pytest.mark.parametrize("text", VECTORS["valid_but_with_build_metadata"] + VECTORS["invalid"])
def test_every_official_invalid_version_and_all_build_metadata_is_refused(text: str) -> None:
    with pytest.raises(VersionInvalid):
        Version(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3\n",
        "\n1.2.3",
        "1.2.3-rc.1\n",
        "1.2.3\r\n",
        " 1.2.3",
        "1.2.3 ",
        "v1.2.3",
        "1.2.٣",
        "1.2.³",
        "\uff11.2.3",
        "1.2.3-é",
        "1.2.3-\udc80",
        "1.2.3\0",
        "1.2.3+",
        "1.2.3+build",
        "1.2.3-",
        "1.2.3-a.",
        "1.2.3-rc.01",
        "-1.2.3",
        "1_0.2.3",
        "0x1.2.3",
        "1.2.3-" + "a" * 59,
        "9" * 5000 + ".0.0",
    ],
)
def test_a_text_that_is_almost_a_version_is_refused_with_a_code(text: str) -> None:
    """No Unicode digits, no line feeds, no blanks, no leading zeros, no more than 64 characters (L5)."""
    with pytest.raises(VersionInvalid) as caught:
        Version(text)
    assert caught.value.code == "invalid_version"
    assert "expected SemVer like 1.2.3" in caught.value.message
    assert len(caught.value.message) < 300


def test_a_version_of_sixty_four_characters_is_the_longest() -> None:
    assert Version("1.2.3-" + "a" * (MAX_LENGTH - 6)) < Version("1.2.3")
    assert Version("9" * 60 + ".0.0") > Version("9" * 59 + ".0.0")


def specification_order(left: str, right: str) -> int:
    """Compare two versions as SemVer §11 words it; -1, 0 or 1."""
    left_core, _, left_pre = left.partition("-")
    right_core, _, right_pre = right.partition("-")
    for a, b in zip(left_core.split("."), right_core.split("."), strict=True):
        if int(a) != int(b):
            return -1 if int(a) < int(b) else 1
    if not left_pre or not right_pre:
        return bool(right_pre) - bool(left_pre)
    for a, b in itertools.zip_longest(left_pre.split("."), right_pre.split(".")):
        if a == b:
            continue
        if a is None or b is None:
            return -1 if a is None else 1
        if a.isdigit() and b.isdigit():
            return -1 if int(a) < int(b) else 1
        if a.isdigit() != b.isdigit():
            return -1 if a.isdigit() else 1
        return -1 if a.encode("ascii") < b.encode("ascii") else 1
    return 0


@given(version_texts, version_texts)
def test_the_order_is_that_of_the_specification(left: str, right: str) -> None:
    """SemVer §11, L5."""
    a, b, order = Version(left), Version(right), specification_order(left, right)
    assert (a < b, a == b, a > b) == (order < 0, order == 0, order > 0)
    assert (a <= b, a != b, a >= b) == (order <= 0, order != 0, order >= 0)
    if a == b:
        assert hash(a) == hash(b)
        assert left == right, "without build metadata, equal versions are written alike"


@given(st.lists(versions, max_size=8).flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
def test_sorting_does_not_depend_on_the_order_of_arrival(both: tuple[list[Version], list[Version]]) -> None:
    assert sorted(both[0]) == sorted(both[1])


@given(version_texts)
def test_a_version_is_written_as_it_was_read(text: str) -> None:
    version = Version(text)
    assert str(version) == text
    assert repr(version) == f"Version({text!r})"


@given(st.text(max_size=70))
def test_any_text_is_a_version_or_refused_and_never_anything_else(text: str) -> None:
    assert refusal(Version, text) in {None, "invalid_version"}


@given(versions)
def test_versions_can_be_sent_between_processes_and_copied(version: Version) -> None:
    assert pickle.loads(pickle.dumps(version)) == version  # noqa: S301 -- our own bytes
    assert copy.deepcopy(version) == version


def test_a_version_cannot_be_changed() -> None:
    version = Version("1.2.3")
    with pytest.raises(AttributeError):
        version.text = "9.9.9"
    with pytest.raises(AttributeError):
        del version.text
    assert str(version) == "1.2.3"


def test_a_version_compares_with_versions_only() -> None:
    version = Version("1.2.3")
    assert version != "1.2.3"
    for compare in (version.__lt__, version.__le__, version.__gt__, version.__ge__):
        assert compare("1.2.3") is NotImplemented
    with pytest.raises(TypeError):
        sorted([version, "1.0.0"])  # type: ignore[type-var]
