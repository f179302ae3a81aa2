"""What goes over HTTP: requests are read leniently, and bounded everywhere (design §5, FR-UPD-003)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from core.making import refusal
from hypothesis import given
from hypothesis import strategies as st

from repo_server.core.model import Arch, Channel, Device, Installed, Os, Platform
from repo_server.core.version import Version
from repo_server.core.wire import (
    MAX_COMPONENTS,
    MAX_RECORDS,
    CheckRequest,
    StatusRequest,
    UpdateRecord,
    device_of,
)

ID = "0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d"
MINIMAL: dict[str, Any] = {
    "updater_version": "1.0.0",
    "os": "linux",
    "arch": "amd64",
    "release_channel": "stable",
    "components": [],
}


def check(**more: Any) -> CheckRequest:
    return msgspec.json.decode(msgspec.json.encode(MINIMAL | more), type=CheckRequest)


def test_five_fields_are_enough_for_a_check() -> None:
    """FR-UPD-003."""
    assert device_of(check()) == Device(Platform(Os.LINUX, Arch.AMD64), (), Channel.STABLE)


@pytest.mark.parametrize("field", MINIMAL)
def test_each_of_the_five_fields_is_required(field: str) -> None:
    """FR-UPD-003."""
    rest = {name: value for name, value in MINIMAL.items() if name != field}
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(msgspec.json.encode(rest), type=CheckRequest)


def test_fields_of_a_newer_agent_are_accepted() -> None:
    assert device_of(check(gpu="none", components=[{"name": "ui", "version": "1.0.0", "build": 7}])).components == (
        Installed("ui", Version("1.0.0")),
    )


def test_a_device_is_what_its_check_says() -> None:
    """L31, L53."""
    request = check(
        device_id=f"win-{ID.upper()}",
        org_id=" ORG-1 ",
        site_id="Berlin",
        components=[{"name": "ui", "version": "1.2.3"}, {"name": "probe", "version": ""}],
    )
    assert device_of(request) == Device(
        Platform(Os.LINUX, Arch.AMD64),
        (Installed("ui", Version("1.2.3")), Installed("probe", None)),
        Channel.STABLE,
        ID,
        "org-1",
        "berlin",
    )


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_blank_ids_of_site_and_organisation_are_none(blank: str | None) -> None:
    found = device_of(check(org_id=blank, site_id=blank))
    assert (found.org_id, found.site_id) == (None, None)


def test_an_agent_may_leave_its_channel_to_the_server() -> None:
    """L31."""
    assert device_of(check(release_channel="")).configured_channel is None


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"os": "Linux"}, "invalid_os"),
        ({"os": ""}, "invalid_os"),
        ({"arch": "x86_64"}, "invalid_arch"),
        ({"release_channel": "nightly"}, "invalid_channel"),
        ({"device_id": "laptop"}, "invalid_device_id"),
        ({"device_id": ""}, "invalid_device_id"),
        ({"device_id": "0" * 32}, "invalid_device_id"),
        ({"components": [{"name": "ui", "version": "1.0.0"}] * 2}, "duplicate_component"),
    ],
)
def test_a_check_that_says_something_impossible_is_refused_with_a_code(more: dict[str, Any], code: str) -> None:
    """EH-SRV-001: the code goes to the client."""
    assert refusal(device_of, check(**more)) == code


@pytest.mark.parametrize(
    "more",
    [
        {"components": [{"name": f"c{number}", "version": ""} for number in range(MAX_COMPONENTS + 1)]},
        {"components": [{"name": f"c{number}", "version": ""} for number in range(10_000)]},
        {"components": [{"name": "", "version": "1.0.0"}]},
        {"components": [{"name": "x" * 65, "version": "1.0.0"}]},
        {"components": [{"name": "ui", "version": "x" * 65}]},
        {"components": [{"name": "ui"}]},
        {"components": {"ui": "1.0.0"}},
        {"components": None},
        {"os": 7},
        {"os": "x" * 65},
        {"device_id": "x" * 129},
        {"device_id": 7},
        {"previous_ids": ["x"] * 17},
        {"previous_ids": ["x" * 129]},
        {"org_id": "x" * 129},
        {"attributes": {f"a{number}": 1 for number in range(65)}},
        {"attributes": {"": 1}},
        {"attributes": {"x" * 65: 1}},
        {"attributes": []},
        {"health": "fine"},
        {"health": {"status": "ok", "details": "x" * 4097}},
    ],
)
def test_a_check_of_wrong_types_or_sizes_is_not_read(more: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        check(**more)


def test_the_largest_check_that_is_allowed_is_read() -> None:
    some = [{"name": f"c{number}", "version": "1.0.0"} for number in range(MAX_COMPONENTS)]
    assert len(device_of(check(components=some, previous_ids=[ID] * 16)).components) == MAX_COMPONENTS


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff", b'"x"', b"{" * 50_000, b'{"a":' * 50_000])
def test_a_body_that_is_no_check_is_an_error_of_the_reader_and_no_other(body: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, RecursionError)):
        msgspec.json.decode(body, type=CheckRequest)


@given(st.text(max_size=64), st.text(max_size=64), st.text(max_size=64), st.none() | st.text(max_size=64))
def test_any_words_are_a_device_or_refused(os: str, arch: str, version: str, device_id: str | None) -> None:
    request = CheckRequest("1.0.0", os, arch, "beta", (), device_id)
    assert refusal(device_of, request) in {None, "invalid_os", "invalid_arch", "invalid_device_id"}
    assert refusal(device_of, CheckRequest(version, "linux", "arm64", "", ())) is None


RECORD: dict[str, Any] = {
    "record_id": ID,
    "component_name": "service",
    "trigger_source": "schedule",
    "requested_version": "1.2.3",
    "status": "success",
    "attempt_timestamp": "2026-11-21T18:00:00Z",
}


def test_one_bad_record_does_not_hold_up_the_others() -> None:
    """Design §11: each record is read by itself."""
    bad = RECORD | {"status": "exploded"}
    request = msgspec.json.decode(
        msgspec.json.encode({"device_id": ID, "records": [RECORD, bad, 7]}), type=StatusRequest
    )
    assert msgspec.json.decode(request.records[0], type=UpdateRecord).component_name == "service"
    for raw in request.records[1:]:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(raw, type=UpdateRecord)


@pytest.mark.parametrize(
    "more",
    [
        {"record_id": "7"},
        {"component_name": ""},
        {"component_name": "x" * 51},
        {"requested_version": ""},
        {"status": "SUCCESS"},
        {"attempt_timestamp": "2026-11-21T18:00:00"},
        {"error_message": "x" * 4097},
        {"details": {str(number): 1 for number in range(65)}},
    ],
)
def test_a_record_outside_its_bounds_is_not_read(more: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(RECORD | more), type=UpdateRecord)


def test_too_many_records_at_once_are_not_read() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(
            msgspec.json.encode({"device_id": ID, "records": [7] * (MAX_RECORDS + 1)}), type=StatusRequest
        )
