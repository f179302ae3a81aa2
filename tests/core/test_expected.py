"""What a decoder refuses is said in words, with the place and what was expected (EH-SRV-001, L8)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from repo_server.core.errors import FormatError
from repo_server.core.expected import in_words
from repo_server.core.package import parse_package_toml
from repo_server.core.policy import parse_channels_toml, parse_repo_toml
from repo_server.core.sidecars import parse_blocked, parse_meta, parse_rollout
from repo_server.core.wire import CheckRequest, UpdateRecord

CHECK = {"updater_version": "1", "os": "linux", "arch": "amd64", "release_channel": "x", "components": []}
RECORD = {
    "record_id": "00000000-0000-4000-8000-000000000000", "component_name": "a", "trigger_source": "x",
    "requested_version": "1", "status": "success", "attempt_timestamp": "2026-01-01T00:00:00Z",
}  # fmt: skip


def refused(kind: Any, value: object) -> str:
    """Return what is said of a value."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(msgspec.json.encode(value), type=kind)
    return in_words(caught.value, kind)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"os": 1}, "os: expected text, found a whole number"),
        ({"components": [{"name": "a"}]}, "components[0]: the field version is missing"),
        ({"components": [{"name": "", "version": "1"}]}, "components[0].name: it is empty"),
        ({"components": [{}] * 65}, "components[0]: the field name is missing"),
        ({"components": [{"name": "a", "version": "1" * 99}]}, "components[0].version: expected at most 64 characters"),
        ({"attributes": {"": 1}}, "a name in attributes: it is empty"),
        ({"attributes": 1.5}, "attributes: expected an object or null, found a fraction"),
        ({"previous_ids": ["a"] * 17}, "previous_ids: expected at most 16 entries"),
    ],
)
def test_a_check_that_is_refused_is_told_where_and_why(change: dict[str, object], expected: str) -> None:
    assert refused(CheckRequest, CHECK | change) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"status": "done"}, "status: 'done' is not one of pending, downloading, installing, success"),
        ({"record_id": "x"}, "record_id: expected a UUID"),
        ({"attempt_timestamp": "2026-01-01"}, "attempt_timestamp: expected a time with its zone like 2026-"),
        ({"attempt_timestamp": "2026-01-01T00:00:00"}, "attempt_timestamp: expected a time with its zone like 2026-"),
    ],
)
def test_a_record_that_is_refused_is_told_where_and_why(change: dict[str, object], expected: str) -> None:
    assert refused(UpdateRecord, RECORD | change).startswith(expected)


def test_a_value_that_looks_like_a_message_is_a_value() -> None:
    """A megabyte of it is neither gone through again and again nor sent back."""
    said = refused(UpdateRecord, RECORD | {"status": "x - at `$.os` - at `$" * 50_000})
    assert said.startswith("status: 'x - at `$.os`")
    assert "is not one of pending, downloading" in said
    assert len(said) < 300


PACKAGE = b'component = "service"\nversion = "1.0.0"\nos = "linux"\narch = "amd64"\n'


@pytest.mark.parametrize(
    ("parse", "data", "expected"),
    [
        (parse_meta, b'{"release_notes_url": "ftp://x"}', "expected a URL that starts with http:// or https://"),
        (parse_meta, b'{"title": "a\\u0000"}', "title: expected text without NUL"),
        (parse_blocked, b'{"reason": "a\\u0000"}', "reason: expected text without NUL"),
        (parse_blocked, b'{"reason": ""}', "reason: it is empty"),
        (parse_rollout, b'{"start": "2026-01-01T00:00:00Z", "from": 2}', "from: expected a number, at most 1"),
        (parse_rollout, b'{"start": "2026-01-01T00:00:00Z", "halt": {"min_devices": 0}}', "whole number, at least 1"),
        (parse_repo_toml, b"stale_day = 1", "there is no field stale_day; expected one of product"),
        (parse_repo_toml, b"[limits]\nmax_dept = 1", "limits: there is no field max_dept; expected one of max_file_"),
        (parse_channels_toml, b'[sites]\nberlin = "gamma"', "'gamma' is not one of stable, beta, alpha"),
        (parse_channels_toml, b'default = "Stable"', "default: 'Stable' is not one of stable, beta, alpha"),
        (parse_package_toml, PACKAGE.replace(b'"service"', b'"S"'), "component: expected a component's name"),
        (parse_package_toml, PACKAGE + b'[service]\nkind = "x"', "is not one of process, systemd"),
        (parse_package_toml, PACKAGE + b'[service]\nname = "/x"', "service.name: expected a name of at most 128"),
        (parse_package_toml, PACKAGE + b'[service]\ncommand = [""]', "expected text without NUL characters that"),
        (parse_package_toml, PACKAGE + b"[health]\ntimeout_seconds = 0", "expected a number, more than 0"),
    ],
)  # fmt: skip
def test_a_file_that_is_refused_is_told_in_words(parse: Any, data: bytes, expected: str) -> None:
    """L13 to L15, L30, L31, L40; no regular expression, no name of a type of Python's."""
    with pytest.raises(FormatError) as caught:
        parse(data)
    assert expected in caught.value.message
    assert not any(odd in caught.value.message for odd in ("regex", "`", "\\Z", "str"))


def test_what_has_no_words_is_said_as_it_is() -> None:
    class Odd(msgspec.Struct, forbid_unknown_fields=True):
        code: Annotated[str, msgspec.Meta(pattern="^x$")] = "x"
        many: Annotated[int, msgspec.Meta(multiple_of=3)] = 3

    assert refused(Annotated[Literal["a", "b"], msgspec.Meta(description="a word")], "c") == "'c' is not one of a, b"
    assert (
        refused(list[dict[str, Odd]], [{"a": {"z": 1}}]) == "[0][...]: there is no field z; expected one of code, many"
    )
    assert refused(Odd, {"code": "y"}) == "code: expected text that matches '^x$'"
    assert "multiple of 3" in refused(Odd, {"many": 4})
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'{"x": 1}', type=Odd)
    assert in_words(caught.value) == "there is no field x"
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'{"status": "done"}', type=UpdateRecord)
    assert in_words(caught.value) == "status: Invalid enum value 'done'"


def test_what_is_no_error_of_a_decoder_stays_as_it_is() -> None:
    assert in_words(ValueError("any sentence")) == "any sentence"
    assert "nested too deeply" in in_words(RecursionError("maximum recursion depth exceeded"))
    assert not in_words(msgspec.ValidationError(""))
    assert in_words(msgspec.ValidationError("Invalid enum value 1 - at `$.x`"), int) == "x: Invalid enum value 1"
    assert in_words(msgspec.ValidationError("Object contains unknown field `y`"), int) == "there is no field y"
