"""``POST /v1/status`` into a real PostgreSQL (FR-LOG-001, FR-STA-001, design §11)."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.server import RunningServer
from support.serving import query


def record(**changes: Any) -> dict[str, Any]:
    return {
        "record_id": str(uuid.uuid4()),
        "component_name": "service",
        "trigger_source": "schedule",
        "requested_version": "1.2.3",
        "current_version": "1.1.0",
        "status": "failed",
        "attempt_timestamp": "2026-11-21T18:00:00Z",
        "completion_timestamp": "2026-11-21T19:00:30+01:00",
        "error_code": "health_check_failed",
        "error_message": "it did not answer",
        "details": {"bytes": 17},
        **changes,
    }


def report(server: RunningServer, records: list[Any], device_id: str | None = None) -> dict[str, Any]:
    response = server.post("/v1/status", {"device_id": device_id or str(uuid.uuid4()), "records": records})
    assert response.status == 200, response.data
    answer: dict[str, Any] = response.json()
    return answer


def stored(server: RunningServer, record_id: str) -> list[tuple[Any, ...]]:
    columns = "device_id::text, component_name, status, error_code, error_message, details, completion_timestamp"
    return query(server.state, f"SELECT {columns} FROM agent_update_status_log WHERE record_id = %s", record_id)  # noqa: S608 -- a constant


def test_an_acknowledged_record_is_in_the_database(server: RunningServer) -> None:
    """Also of a device that has never asked for updates: its row is made first."""
    device_id, sent = str(uuid.uuid4()), record()
    assert report(server, [sent], f"WIN-{device_id.upper()}") == {"accepted": [sent["record_id"]], "rejected": []}
    [row] = stored(server, sent["record_id"])
    assert row[:6] == (device_id, "service", "failed", "health_check_failed", "it did not answer", {"bytes": 17})
    assert row[6].timestamp() == 1795284030 or row[6].isoformat() == "2026-11-21T18:00:30+00:00"


def test_a_repeated_record_is_accepted_and_stored_once(server: RunningServer) -> None:
    device_id, sent = str(uuid.uuid4()), record()
    for records in ([sent], [sent, sent], [sent]):
        assert report(server, records, device_id)["accepted"] == [sent["record_id"]]
    assert len(stored(server, sent["record_id"])) == 1


@pytest.mark.parametrize(
    "bad",
    [
        record(status="exploded"),
        record(record_id="7"),
        record(attempt_timestamp="yesterday"),
        record(attempt_timestamp="2026-11-21T18:00:00"),
        record(component_name=""),
        record(component_name="x" * 51),
        record(error_message="x" * 4097),
        record(details=[]),
        record(error_code=[1]),
        {"record_id": str(uuid.uuid4())},
        {},
        "record",
        None,
        [[[[]]]],
    ],
    ids=range(14),
)
def test_a_bad_record_is_rejected_by_itself(server: RunningServer, bad: Any) -> None:
    good = record()
    answer = report(server, [record() | {"record_id": good["record_id"]}, bad])
    assert answer["accepted"] == [good["record_id"]]
    [rejected] = answer["rejected"]
    assert rejected["error_code"] == "invalid_record"
    assert rejected["message"]
    assert rejected["record_id"] == (bad.get("record_id") if isinstance(bad, dict) else None)


@pytest.mark.parametrize(
    "details",
    [
        rb'{"name": "\ud800"}', rb'{"\udfff": 1}', b'{"name": "a\0b"}', b'{"name": "\xff"}', b'{"n": 1e999}',
        b'{"n": 01}', b'{"n": NaN}', b'{"n": ' + b"9" * 5000 + b"}", rb'{"path": "C:\x"}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["half a character", "in a name", "NUL", "no UTF-8", "a large float", "a leading zero", "NaN", "a large number",
         "an unknown escape", "deep"],
)  # fmt: skip
def test_a_record_that_is_no_json_is_rejected_by_itself(server: RunningServer, details: bytes) -> None:
    before, after, bad = record(), record(error_message='"], [{'), record()
    texts = [json.dumps(item).encode() for item in (before, bad, after)]
    texts[1] = texts[1][:-1] + b', "details": ' + details + b"}"
    device = b'"device_id": "6f1c2a34-0000-4000-8000-000000000001"'
    response = server.post("/v1/status", b'{"records" :\n[%b ], %b}' % (b" , ".join(texts), device))
    assert response.status == 200, response.data
    answer = response.json()
    assert answer["accepted"] == [before["record_id"], after["record_id"]]
    [rejected] = answer["rejected"]
    assert (rejected["record_id"], rejected["error_code"]) == (bad["record_id"], "invalid_record")
    assert rejected["message"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (rb'{"device_id": "x", "records": ["\ud800"]}', 422, "invalid_device_id"),
        (rb'{"device_id": "\ud800", "records": []}', 400, "malformed_json"),
        (rb'{"device_id": 1, "records": ["\ud800"]}', 422, "invalid_request"),
        (rb'{"records": ["\ud800"]}', 422, "invalid_request"),
        (rb'{"device_id": "x", "records": ["\ud800"' + b", 1" * 500 + b"]}", 422, "invalid_request"),
        (rb'{"device_id": "x", "records": [["\ud800"]}', 400, "malformed_json"),
        (rb'{"device_id": "x", "records": {"\ud800": 1}}', 422, "invalid_request"),
        (rb'["\ud800"]', 422, "invalid_request"),
        (b'{"device_id": "' + rb"\"" * 400_000, 400, "malformed_json"),
        (b'{"device_id": "x", "records": [' + b"[{" * 400_000, 400, "malformed_json"),
    ],
    ids=range(10),
)
def test_a_batch_that_is_no_json_beyond_its_records_is_refused_at_once(
    server: RunningServer, body: bytes, status: int, code: str
) -> None:
    response = server.post("/v1/status", body)
    assert (response.status, response.json()["error_code"]) == (status, code)


def test_what_postgresql_cannot_hold_is_stored_without_it(server: RunningServer) -> None:
    """NUL in text and in JSON, at every depth; numbers beyond its range stay text of the record's own JSON."""
    sent = record(error_message="a\0b", details={"a\0": ["\0", {"b": "c\0"}]}, error_code=17, current_version=None)
    assert report(server, [sent])["rejected"] == []
    [row] = stored(server, sent["record_id"])
    assert row[3:6] == ("17", "a\ufffdb", {"a\ufffd": ["\ufffd", {"b": "c\ufffd"}]})


def test_a_record_that_the_database_refuses_does_not_hold_up_the_others(server: RunningServer) -> None:
    """A year that PostgreSQL takes and one that it does not, in one batch with good ones."""
    deep: Any = "x"
    for _ in range(700):
        deep = [deep]
    good, odd, also_good = record(), record(details={"deep": deep, "big": 10**400}), record()
    answer = report(server, [good, odd, also_good])
    settled = set(answer["accepted"]) | {item["record_id"] for item in answer["rejected"]}
    assert {good["record_id"], also_good["record_id"]} <= set(answer["accepted"])
    assert settled == {good["record_id"], odd["record_id"], also_good["record_id"]}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"device_id": "x", "records": []}, "invalid_device_id"),
        ({"device_id": "6f1c2a34-0000-4000-8000-000000000001"}, "invalid_request"),
        ({"records": []}, "invalid_request"),
        ({"device_id": "6f1c2a34-0000-4000-8000-000000000001", "records": [1] * 501}, "invalid_request"),
    ],
)
def test_a_malformed_batch_is_refused(server: RunningServer, body: dict[str, Any], code: str) -> None:
    response = server.post("/v1/status", body)
    assert (response.status, response.json()["error_code"]) == (422, code)


def test_an_empty_batch_is_accepted(server: RunningServer) -> None:
    assert report(server, []) == {"accepted": [], "rejected": []}


def test_a_full_batch_is_accepted(server: RunningServer) -> None:
    records = [record(details={"n": n}) for n in range(500)]
    assert len(report(server, records)["accepted"]) == 500


def test_many_devices_at_once_are_all_stored(server: RunningServer) -> None:
    """Group commit: what arrives during one commit goes into the next, and nobody's record is mixed up."""
    sent = {str(uuid.uuid4()): record() for _ in range(60)}
    with ThreadPoolExecutor(12) as threads:
        answers = threads.map(lambda item: report(server, [item[1]], item[0]), sent.items())
        accepted = [answer["accepted"] for answer in answers]
    assert accepted == [[item["record_id"]] for item in sent.values()]
    ids = [item["record_id"] for item in sent.values()]
    rows = query(
        server.state,
        "SELECT device_id::text, record_id::text FROM agent_update_status_log WHERE record_id = ANY(%s)",
        ids,
    )
    assert dict(rows) == {device_id: item["record_id"] for device_id, item in sent.items()}
