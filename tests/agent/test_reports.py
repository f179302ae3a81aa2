"""Every attempt ends in exactly one record, which reaches the server as soon as it can (design §8)."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from support.agent_http import Reply, Request, ScriptedServer, scripted_server

from agent import reports
from agent.client import Client, Retries
from agent.codes import Code
from agent.http import Transport
from agent.logs import Log
from agent.reports import Drained, drain
from agent.spool import Spool
from repo_server.core.wire import UpdateRecord, UpdateStatus

NOW = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)
DEVICE = "0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d"


def record(number: int = 0, record_id: UUID | None = None, **changes: Any) -> UpdateRecord:
    fields: dict[str, Any] = {
        "record_id": record_id or uuid4(),
        "component_name": "service",
        "trigger_source": "scheduled",
        "requested_version": f"1.0.{number}",
        "status": UpdateStatus.FAILED,
        "attempt_timestamp": NOW + timedelta(minutes=number),
        "error_code": int(Code.HEALTH_FAILED),
        "details": {"output": "ü"},
    }
    return UpdateRecord(**{**fields, **changes})


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool", max_records=50)


def test_a_record_is_one_private_file_and_comes_back_as_it_was(spool: Spool, tmp_path: Path) -> None:
    """NFR-SEC-007; in the order of the attempts, not of the ids."""
    records = [record(number) for number in (2, 0, 1)]
    for item in records:
        assert spool.put(item).is_new
    assert spool.pending().records == (records[1], records[2], records[0])
    files = list((tmp_path / "spool").iterdir())
    assert {path.stem for path in files} == {str(item.record_id) for item in records}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)


def test_what_is_no_text_in_a_record_can_be_sent_all_the_same(spool: Spool) -> None:
    item = record(error_message="cannot copy /opt/\udcff", details={"left": ["\udcfe"]})
    spool.put(item)
    (kept,) = spool.pending().records
    assert msgspec.json.decode(msgspec.json.encode(kept), type=UpdateRecord) == kept
    assert (kept.error_message, kept.details) == ("cannot copy /opt/?", {"left": ["?"]})


def test_a_record_id_written_twice_is_one_record_and_stays_as_it_was(spool: Spool) -> None:
    """Recovery after a kill writes the final record again."""
    first = record(1)
    spool.put(first)
    assert not spool.put(record(2, record_id=first.record_id)).is_new
    assert spool.pending().records == (first,)


def test_a_full_spool_drops_the_oldest_and_says_which(spool: Spool) -> None:
    records = [record(number) for number in range(52)]
    dropped = [spooled_id for item in records for spooled_id in spool.put(item).dropped]
    assert dropped == [str(item.record_id) for item in records[:2]]
    assert spool.pending().records == tuple(records[2:])


def test_an_older_record_in_a_full_spool_does_not_drop_itself(spool: Spool) -> None:
    for number in range(1, 51):
        spool.put(record(number))
    late = record(0)
    assert spool.put(late).dropped
    assert late in spool.pending().records


@pytest.mark.parametrize("data", [b"", bytes(100), b"{}", b"garbage", None])
def test_a_damaged_file_is_said_removed_and_holds_up_nothing(spool: Spool, tmp_path: Path, data: bytes | None) -> None:
    good, bad = record(1), record(2)
    spool.put(good)
    spool.put(bad)
    path = tmp_path / "spool" / f"{bad.record_id}.json"
    if data is None:
        shutil.copy(tmp_path / "spool" / f"{good.record_id}.json", path)
    else:
        path.write_bytes(data)
    pending = spool.pending()
    assert pending.records == (good,)
    assert len(pending.damaged) == 1
    assert not path.exists()
    assert spool.pending().damaged == ()


def test_forgetting_is_idempotent_and_takes_only_ids(spool: Spool, tmp_path: Path) -> None:
    item = record()
    spool.put(item)
    spool.discard(str(item.record_id))
    spool.discard(str(item.record_id))
    assert spool.pending().records == ()
    with pytest.raises(ValueError, match="hexadecimal"):
        spool.discard("../../etc/passwd")


def test_a_spool_that_was_never_made_is_empty(tmp_path: Path) -> None:
    assert Spool(tmp_path / "absent").pending().records == ()


@dataclass
class Draining:
    server: ScriptedServer
    spool: Spool
    client: Client
    log: Log
    log_path: Path

    def drain(self) -> Drained:
        return drain(self.spool, self.client, DEVICE, self.log)

    def batches(self) -> list[list[str]]:
        return [[item["record_id"] for item in json.loads(request.body)["records"]] for request in self.server.requests]


def accepting(request: Request, reply: Reply) -> None:
    ids = [item["record_id"] for item in json.loads(request.body)["records"]]
    reply.json(json.dumps({"accepted": ids, "rejected": []}).encode())


@pytest.fixture
def draining(spool: Spool, tmp_path: Path) -> Iterator[Draining]:
    with scripted_server(accepting) as server:
        transport = Transport([server.url], secret="s3cret")
        client = Client(
            transport,
            [server.url],
            sleep=lambda _: None,
            random=lambda: 0.5,
            now=lambda: NOW,
            retries=Retries(rounds=1),
        )
        log_path = tmp_path / "log"
        yield Draining(server, spool, client, Log(log_path, lambda: NOW, max_bytes=10**6, max_files=2), log_path)


def test_what_the_server_accepts_leaves_the_spool(draining: Draining) -> None:
    records = [record(number) for number in range(3)]
    for item in records:
        draining.spool.put(item)
    assert draining.drain() == Drained(accepted=3)
    assert draining.spool.pending().records == ()
    body = json.loads(draining.server.requests[0].body)
    assert body["device_id"] == DEVICE
    assert [item["requested_version"] for item in body["records"]] == ["1.0.0", "1.0.1", "1.0.2"]
    assert draining.drain() == Drained()
    assert len(draining.server.requests) == 1


def test_what_the_server_will_never_take_is_dropped_and_logged(draining: Draining) -> None:
    bad, good, ignored = record(0), record(1), record(2)
    for item in (bad, good, ignored):
        draining.spool.put(item)
    answer = {
        "accepted": [str(good.record_id), "an-id-that-was-not-sent"],
        "rejected": [
            {"record_id": str(bad.record_id), "error_code": "invalid_record", "message": "no"},
            {"record_id": None, "error_code": "x", "message": "x"},
            {"record_id": "../../x", "error_code": "x", "message": "x"},
        ],
    }
    draining.server.script = lambda _, reply: reply.json(json.dumps(answer).encode())
    assert draining.drain() == Drained(accepted=1, rejected=1, left=1)
    assert draining.spool.pending().records == (ignored,)
    (line,) = [json.loads(text) for text in draining.log_path.read_text().splitlines()]
    assert (line["record_id"], line["server_error"]) == (str(bad.record_id), "invalid_record")


def test_everything_stays_while_the_server_is_away(draining: Draining) -> None:
    """Promise 3: a later cycle sends it; this one does not fail for it."""
    draining.spool.put(record())
    draining.server.script = lambda _, reply: reply.send(503)
    drained = draining.drain()
    assert (drained.accepted, drained.left) == (0, 1)
    assert drained.failure is not None
    assert drained.failure.code is Code.HTTP_STATUS
    draining.server.script = accepting
    assert draining.drain() == Drained(accepted=1)


def test_many_records_go_in_batches_and_those_that_went_are_gone(
    draining: Draining, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Smaller batches, so that few files are enough.
    monkeypatch.setattr(reports, "BATCH", 2)
    for number in range(5):
        draining.spool.put(record(number))

    def once(request: Request, reply: Reply) -> None:
        if len(draining.server.requests) == 2:
            reply.send(503)
        else:
            accepting(request, reply)

    draining.server.script = once
    drained = draining.drain()
    assert (drained.accepted, drained.left) == (2, 3)
    assert draining.drain() == Drained(accepted=3)
    assert [len(batch) for batch in draining.batches()] == [2, 2, 2, 1]


@pytest.mark.parametrize(("status", "rejected", "left"), [(413, 1, 0), (400, 0, 1)])
def test_a_record_that_spoils_its_batch_holds_up_no_other(
    draining: Draining, status: int, rejected: int, left: int
) -> None:
    records = [record(number) for number in range(5)]
    for item in records:
        draining.spool.put(item)
    poison = str(records[2].record_id)

    def picky(request: Request, reply: Reply) -> None:
        if poison in request.body.decode():
            reply.send(status)
        else:
            accepting(request, reply)

    draining.server.script = picky
    drained = draining.drain()
    assert (drained.accepted, drained.rejected, drained.left) == (4, rejected, left)
    assert len(draining.spool.pending().records) == left


def test_a_server_that_refuses_everything_is_not_asked_record_by_record(draining: Draining) -> None:
    for number in range(40):
        draining.spool.put(record(number))
    draining.server.script = lambda _, reply: reply.send(400)
    assert draining.drain().left == 40
    assert len(draining.server.requests) < 12


def test_damage_in_the_spool_is_logged(draining: Draining, tmp_path: Path) -> None:
    (tmp_path / "spool" / f"{uuid4()}.json").write_bytes(os.urandom(50))
    assert draining.drain() == Drained()
    assert json.loads(draining.log_path.read_text())["code_name"] == "STATE_DAMAGED"
