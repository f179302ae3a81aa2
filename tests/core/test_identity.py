"""One device has one id, however it is written (L53)."""

from __future__ import annotations

from uuid import UUID

import pytest
from core.making import refusal
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.identity import normalise_device_id

BARE = "0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d"


@pytest.mark.parametrize(
    "written",
    [
        BARE,
        BARE.upper(),
        BARE.replace("-", ""),
        f"  {BARE}\n",
        f"win-{BARE}",
        f"WIN-{BARE.upper()}",
        f"mac-{BARE}",
        f"macos-{BARE}",
        f"linux-{BARE}",
        f"lin-{BARE}",
    ],
)
def test_all_spellings_of_an_id_are_one_device(written: str) -> None:
    """L53."""
    assert normalise_device_id(written) == BARE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "win-",
        "laptop-17",
        BARE[:-1],
        BARE + "0",
        f"{{{BARE}}}",
        f"urn:uuid:{BARE}",
        f"win-win-{BARE}",
        f"w\u0131n-{BARE}",
        BARE.replace("0", "\u0660"),
        BARE.replace("1", "g"),
        "00000000-0000-0000-0000-000000000000",
        "win-FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        f"{BARE}\0",
        "\ud800",
    ],
)
def test_what_is_no_uuid_or_shared_by_many_machines_is_refused(text: str) -> None:
    """L53."""
    assert refusal(normalise_device_id, text) == "invalid_device_id"


@given(st.uuids().filter(lambda value: value.int not in {0, 2**128 - 1}), st.sampled_from(["", "win-", "Mac-", "LIN-"]))
def test_every_uuid_is_kept_and_normalising_twice_changes_nothing(value: UUID, prefix: str) -> None:
    once = normalise_device_id(prefix + str(value).upper())
    assert once == str(value)
    assert normalise_device_id(once) == once


@given(st.text(max_size=60))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    assert refusal(normalise_device_id, text) in {None, "invalid_device_id"}
