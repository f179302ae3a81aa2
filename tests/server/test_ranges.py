"""Ranges and preconditions of RFC 9110 (NFR-PER-002), as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repo_server.ranges import Conditions, NotModified, NotSatisfiable, Part, PreconditionFailed, Whole, select

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", Part(0, 0)),
        ("bytes=0-", Part(0, 99)),
        ("bytes=10-19", Part(10, 19)),
        ("bytes=90-500", Part(90, 99)),
        ("bytes=-10", Part(90, 99)),
        ("bytes=-500", Part(0, 99)),
        ("Bytes=5-6", Part(5, 6)),
        (" bytes= 5-6 ", Part(5, 6)),
        ("bytes=99-", Part(99, 99)),
        ("bytes=100-", NotSatisfiable()),
        ("bytes=100-200", NotSatisfiable()),
        ("bytes=-0", NotSatisfiable()),
        ("bytes=20-10", Whole()),
        ("bytes=-", Whole()),
        ("bytes=", Whole()),
        ("bytes=a-b", Whole()),
        ("bytes=1-2-3", Whole()),
        ("bytes=0-1,5-6", Whole()),
        ("lines=1-2", Whole()),
        ("bytes=\u0661-", Whole()),
        ("bytes=" + "9" * 5000 + "-", Whole()),
        ("", Whole()),
    ],
)
def test_a_range_selects_what_the_rfc_says(header: str, expected: object) -> None:
    assert select(Conditions(range=header), ETAG, 100) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (Conditions(if_none_match=ETAG), NotModified()),
        (Conditions(if_none_match=f'"x", W/{ETAG}'), NotModified()),
        (Conditions(if_none_match="*"), NotModified()),
        (Conditions(if_none_match='"x"'), Whole()),
        (Conditions(if_match=ETAG), Whole()),
        (Conditions(if_match="*"), Whole()),
        (Conditions(if_match='"x"'), PreconditionFailed()),
        (Conditions(if_match=f"W/{ETAG}"), PreconditionFailed()),
        (Conditions(range="bytes=1-2", if_range=ETAG), Part(1, 2)),
        (Conditions(range="bytes=1-2", if_range='"other"'), Whole()),
        (Conditions(range="bytes=1-2", if_range=f"W/{ETAG}"), Whole()),
        (Conditions(range="bytes=1-2", if_range="Sat, 21 Nov 2026 18:00:00 GMT"), Whole()),
        (Conditions(range="bytes=500-", if_range='"other"'), Whole()),
        (Conditions(range="bytes=1-2", if_none_match=ETAG), NotModified()),
    ],
)
def test_conditions_are_evaluated_in_the_order_of_the_rfc(conditions: Conditions, expected: object) -> None:
    assert select(conditions, ETAG, 100) == expected


def test_a_range_means_nothing_for_head() -> None:
    assert select(Conditions(range="bytes=500-"), ETAG, 100, head=True) == Whole()


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_no_range_of_an_empty_file_exists(header: str) -> None:
    assert select(Conditions(range=header), ETAG, 0) == NotSatisfiable()


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30), st.integers(0, 1000))
def test_a_part_is_always_inside_the_file(header: str, size: int) -> None:
    selection = select(Conditions(range=header), ETAG, size)
    if isinstance(selection, Part):
        assert 0 <= selection.first <= selection.last < size
