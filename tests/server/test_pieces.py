"""JSON is taken apart as a decoder would, without understanding what stands between."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from repo_server.web.pieces import elements, members

TEXTS = st.text('"\\[]{},: \naé', max_size=6)
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(VALUES, max_size=4), st.sampled_from([None, 1]))
@settings(deadline=None, max_examples=50)
def test_the_elements_of_an_array_are_its_elements(values: list[Any], indent: int | None) -> None:
    assert [json.loads(piece) for piece in elements(json.dumps(values, indent=indent).encode())] == values


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
@settings(deadline=None, max_examples=50)
def test_the_members_of_an_object_are_its_members(values: dict[str, Any]) -> None:
    text = json.dumps(values, ensure_ascii=False).encode()
    assert {name: json.loads(piece) for name, piece in members(text).items()} == values
