"""Ranges and preconditions of RFC 9110 (NFR-PER-002), as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repo_server.web.ranges import (
    Conditions,
    NotModified,
    NotSatisfiable,
    Part,
    Parts,
    PreconditionFailed,
    Whole,
    select,
)

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
        ("bytes=0-1,x", Whole()),
        ("bytes=,", Whole()),
        ("lines=1-2", Whole()),
        ("bytes=\u0661-", Whole()),
        ("bytes=10-" + "9" * 20, Part(10, 99)),
        ("bytes=10-" + "9" * 5000, Part(10, 99)),
        ("bytes=-" + "9" * 20, Part(0, 99)),
        ("bytes=" + "0" * 30 + "5-" + "0" * 30 + "6", Part(5, 6)),
        ("bytes=000-00", Part(0, 0)),
        ("bytes=" + "9" * 20 + "-", NotSatisfiable()),
        ("bytes=" + "9" * 5000 + "-", NotSatisfiable()),
        ("bytes=" + "9" * 21 + "-" + "9" * 20, Whole()),
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


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9,5000-5009", Parts((Part(0, 9), Part(5000, 5009)))),
        ("bytes=5000-5009, 0-9", Parts((Part(5000, 5009), Part(0, 9)))),
        ("bytes=0-9,,-10,", Parts((Part(0, 9), Part(9990, 9999)))),
        ("bytes=0-9,5-6", Part(0, 9)),
        ("bytes=0-9,100-109", Part(0, 109)),
        ("bytes=0-9,5000-5009,10-4999", Part(0, 5009)),
        ("bytes=0-9,20000-", Part(0, 9)),
        ("bytes=0-,0-,0-", Part(0, 9999)),
        ("bytes=20000-,-0", NotSatisfiable()),
        ("bytes=0-9,9-0", Whole()),
        ("bytes=" + ",".join(f"{n * 500}-{n * 500}" for n in range(16)), 16),
        ("bytes=" + ",".join(f"{n * 500}-{n * 500}" for n in range(17)), Whole()),
    ],
)
def test_several_ranges_select_what_the_rfc_says(header: str, expected: object) -> None:
    """What overlaps or nearly touches becomes one; more than sixteen get the whole file."""
    selection = select(Conditions(range=header), ETAG, 10_000)
    assert (len(selection.parts) if isinstance(selection, Parts) and expected == 16 else selection) == expected


def selected(selection: object) -> list[Part]:
    return [selection] if isinstance(selection, Part) else list(selection.parts) if isinstance(selection, Parts) else []


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30), st.integers(0, 1000))
def test_a_part_is_always_inside_the_file(header: str, size: int) -> None:
    for part in selected(select(Conditions(range=header), ETAG, size)):
        assert 0 <= part.first <= part.last < size


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 300)), min_size=1, max_size=16), st.integers(1, 2500))
def test_parts_hold_every_byte_that_was_asked_for_and_none_twice(wanted: list[tuple[int, int]], size: int) -> None:
    header = "bytes=" + ",".join(f"{first}-{first + more}" for first, more in wanted)
    parts = selected(select(Conditions(range=header), ETAG, size))
    sent = [byte for part in parts for byte in range(part.first, part.last + 1)]
    asked = {byte for first, more in wanted for byte in range(first, first + more + 1) if byte < size}
    assert len(sent) == len(set(sent))
    assert asked <= set(sent)
