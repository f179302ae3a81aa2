"""Devices in PostgreSQL: check-ins, identity, and life without a database (design §7, promise 4)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.server import RunningServer, check_body, running, wait_until
from support.serving import SERVICE, family, postmaster, query, resume, strike
from support.trees import Tree

from repo_server.store import DatabaseAway
from repo_server.store.database import Connection, Database
from repo_server.store.embedded import EmbeddedPostgres
from repo_server.store.migrate import migrate


def device(server: RunningServer, device_id: str) -> dict[str, Any] | None:
    response = server.get(f"/v1/devices/{device_id}")
    return response.json() if response.status == 200 else None


def seen(server: RunningServer, device_id: str, **expected: Any) -> dict[str, Any]:
    """Wait until a check-in with these values has been written."""

    def written() -> dict[str, Any] | None:
        row = device(server, device_id)
        return row if row is not None and all(row[name] == value for name, value in expected.items()) else None

    found: dict[str, Any] = wait_until(written, f"{device_id} is {expected}", server.log_path)
    return found


def at_rest(server: RunningServer) -> None:
    """Wait until the server has made its partitions: dropping tables meanwhile may end in a deadlock, here or there."""
    wait_until(lambda: "event_log_y" in server.log, "the partitions are made", server.log_path)


def test_a_check_in_becomes_a_device(server: RunningServer) -> None:
    """FR-STA-001 of the source schema: versions, health, last check-in."""
    device_id, org_id = str(uuid.uuid4()), str(uuid.uuid4())
    server.check(
        device_id=device_id,
        updater_version="1.4.0",
        org_id=org_id,
        site_id="berlin",
        components=[
            {"name": name, "version": f"{n}.0.0"} for n, name in enumerate(("service", "ui", "probe", "sensor"))
        ],
        attributes={"os": "Debian 13", "nul": "\0"},
        health={"status": "degraded", "details": "disk"},
    )
    row = seen(server, device_id, site_id="berlin")
    assert (row["os_type"], row["cpu_architecture"], row["reported_channel"]) == ("linux", "amd64", "stable")
    assert (row["agent_service_version"], row["agent_ui_version"], row["agent_probe_version"]) == (
        "0.0.0",
        "1.0.0",
        "2.0.0",
    )
    assert (row["agent_updater_version"], row["org_id"]) == ("1.4.0", org_id)
    assert {item["name"]: item["version"] for item in row["components"]}["sensor"] == "3.0.0"
    assert row["attributes"] == {"os": "Debian 13", "nul": "\ufffd"}
    assert (row["agent_health_status"], row["agent_health_details"]) == ("degraded", "disk")
    assert row["last_agent_checkin"]
    assert row["attempts"] == []


def test_tables_that_somebody_dropped_are_made_again(server: RunningServer) -> None:
    """Promise 4: the database is disposable, also in parts."""
    device_id = str(uuid.uuid4())
    at_rest(server)
    query(server.state, "DROP TABLE devices, agent_update_status_log, event_log CASCADE")
    server.check(device_id=device_id, components=[{"name": "ui", "version": "5.0.0"}])
    seen(server, device_id, agent_ui_version="5.0.0")


def test_a_database_without_rights_for_us_is_one_that_is_away(server: RunningServer) -> None:
    """Since PostgreSQL 15 a new user may make no tables: agents are served, and it is tried again."""
    query(server.state, "CREATE ROLE weak LOGIN")
    query(server.state, "CREATE DATABASE others")
    descriptor = os.open(server.state / "postgres", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(DatabaseAway, match="permission denied"):
            migrate(f"host=/proc/self/fd/{descriptor} user=weak dbname=others")
    finally:
        os.close(descriptor)


def test_a_component_that_is_not_installed_has_no_version(server: RunningServer) -> None:
    """NULL, not an empty text: whoever counts versions would count a version ""."""
    device_id = str(uuid.uuid4())
    server.check(
        device_id=device_id, components=[{"name": "service", "version": ""}, {"name": "ui", "version": "5.0.0"}]
    )
    assert seen(server, device_id, agent_ui_version="5.0.0")["agent_service_version"] is None


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("infinity", "infinity"),
        ("-infinity", "-infinity"),
        ("0044-03-15 10:00:00.5+00 BC", "-000043-03-15T10:00:00.5Z"),
        ("0001-12-31 10:00:00+00 BC", "+000000-12-31T10:00:00Z"),
        ("12345-01-01 00:00:00+00", "+012345-01-01T00:00:00Z"),
    ],
)
def test_an_instant_that_no_calendar_has_does_not_hide_its_device(
    server: RunningServer, stored: str, shown: str
) -> None:
    """PostgreSQL stores them, Python does not; they are written as ISO 8601 writes them."""
    device_id = str(uuid.uuid4())
    server.check(device_id=device_id)
    seen(server, device_id)
    query(
        server.state,
        "UPDATE devices SET last_agent_checkin = %s WHERE device_id = %s RETURNING device_id",
        stored,
        device_id,
    )
    response = server.get(f"/v1/devices/{device_id}")
    assert response.status == 200
    assert response.json()["last_agent_checkin"] == shown
    assert server.get("/v1/devices?limit=1000").status == 200
    assert server.get("/v1/versions").status == 200


@pytest.mark.parametrize("field", ["attempt_timestamp", "completion_timestamp"])
def test_a_record_of_a_time_outside_the_calendar_is_rejected_by_itself(server: RunningServer, field: str) -> None:
    """In UTC it is in no year that a list could show; the other records of the batch are taken."""

    def record(**changed: str) -> dict[str, str]:
        return {
            "record_id": str(uuid.uuid4()), "component_name": "ui", "trigger_source": "x", "status": "success",
            "requested_version": "1.0.0", "attempt_timestamp": "0001-01-01T00:00:00Z", **changed,
        }  # fmt: skip

    good, early, late = (
        record(),
        record(**{field: "0001-01-01T00:00:00+14:00"}),
        record(**{field: "9999-12-31T23:59:59-01:00"}),
    )
    response = server.post("/v1/status", {"device_id": str(uuid.uuid4()), "records": [early, good, late]})
    answer = response.json()
    assert answer["accepted"] == [good["record_id"]]
    assert [item["record_id"] for item in answer["rejected"]] == [early["record_id"], late["record_id"]]
    assert all(field in item["message"] and "1 to 9999" in item["message"] for item in answer["rejected"])


def test_what_a_check_in_does_not_say_stays_known(server: RunningServer) -> None:
    device_id = str(uuid.uuid4())
    server.check(device_id=device_id, site_id="berlin", attributes={"a": 1}, health={"status": "ok"})
    seen(server, device_id, site_id="berlin")
    server.check(device_id=device_id, components=[{"name": "ui", "version": "5.0.0"}])
    row = seen(server, device_id, agent_ui_version="5.0.0")
    assert (row["site_id"], row["attributes"], row["agent_health_status"]) == ("berlin", {"a": 1}, "ok")
    assert row["agent_service_version"] is None


def test_an_organisation_that_is_no_uuid_is_kept_with_the_attributes(server: RunningServer) -> None:
    device_id = str(uuid.uuid4())
    server.check(device_id=device_id, org_id="acme", attributes={"a": 1})
    assert seen(server, device_id, os_type="linux")["attributes"] == {"a": 1, "org_id": "acme"}


def test_absurdly_nested_reports_harm_nobody(server: RunningServer) -> None:
    """As deep as a decoder lets through; whether it is kept or dropped, the server and the others' reports live on."""
    poor, fine = str(uuid.uuid4()), str(uuid.uuid4())
    for depth in (200, 500, 800, 900, 950, 980):
        nested = "[" * depth + "]" * depth
        body = json.dumps(check_body(device_id=poor, attributes={"deep": 0})).replace("0}", nested + "}")
        assert server.post("/v1/check", body.encode()).status in {200, 400}
        report = f'{{"device_id": "{poor}", "records": [{{"record_id": "{uuid.uuid4()}", "component_name": "ui",'
        report += (
            f' "trigger_source": "x", "requested_version": "1.0.0", "status": "success", "details": {{"d": {nested}}},'
        )
        report += ' "attempt_timestamp": "2026-01-01T00:00:00Z"}]}'
        assert server.post("/v1/status", report.encode()).status in {200, 400}
    server.check(device_id=fine, site_id="berlin")
    seen(server, fine, site_id="berlin")
    assert server.process.poll() is None


def test_one_device_in_all_spellings_of_its_id_is_one_row(server: RunningServer) -> None:
    """L53."""
    device_id = str(uuid.uuid4())
    for n, spelling in enumerate(
        (device_id, f"win-{device_id}", f"WIN-{device_id.upper()}", device_id.replace("-", ""))
    ):
        server.check(device_id=spelling, components=[{"name": "ui", "version": f"{n}.0.0"}])
    seen(server, device_id, agent_ui_version="3.0.0")
    assert query(server.state, "SELECT count(*) FROM devices WHERE device_id::text = %s", device_id) == [(1,)]


def test_a_device_that_changes_its_id_stays_one_device_with_its_history(server: RunningServer) -> None:
    old, new, record_id = str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4())
    server.check(device_id=old, site_id="berlin")
    seen(server, old, site_id="berlin")
    record = {
        "record_id": record_id, "component_name": "ui", "trigger_source": "x", "requested_version": "1.0.0",
        "status": "success", "attempt_timestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert server.post("/v1/status", {"device_id": old, "records": [record]}).json()["accepted"] == [record_id]
    server.check(device_id=new, previous_ids=[f"win-{old}", "not an id", new])
    row = seen(server, new, site_id="berlin")
    assert row["previous_ids"] == [old]
    assert [attempt["record_id"] for attempt in row["attempts"]] == [record_id]
    assert device(server, old) is None


def test_a_device_that_changes_its_id_twice_within_one_batch_is_one_device(server: RunningServer) -> None:
    """While the database is away a batch may hold what happened in hours."""
    first, second, third = (str(uuid.uuid4()) for _ in range(3))
    server.check(device_id=first)
    server.check(device_id=second, previous_ids=[f"win-{first}"])
    server.check(device_id=third, previous_ids=[second])
    row = seen(server, third, os_type="linux")
    assert set(row["previous_ids"]) == {first, second}
    assert [device(server, first), device(server, second)] == [None, None]


def test_a_former_id_does_not_take_a_known_device_away(server: RunningServer) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    for device_id in (first, second):
        server.check(device_id=device_id, site_id=device_id)
        seen(server, device_id, site_id=device_id)
    server.check(device_id=second, previous_ids=[first], components=[{"name": "ui", "version": "7.0.0"}])
    seen(server, second, agent_ui_version="7.0.0")
    assert device(server, first) is not None


def test_values_longer_than_their_columns_are_shortened(server: RunningServer) -> None:
    device_id = str(uuid.uuid4())
    server.check(device_id=device_id, updater_version="9" * 64, health={"status": "s" * 64})
    row = seen(server, device_id, os_type="linux")
    assert (row["agent_updater_version"], row["agent_health_status"]) == ("9" * 50, "s" * 20)


def test_devices_are_listed_in_pages(server: RunningServer) -> None:
    ids = sorted(str(uuid.UUID(int=(0xFFFF << 112) + n)) for n in range(5))
    for device_id in ids:
        server.check(device_id=device_id)
    for device_id in ids:
        seen(server, device_id)
    page = server.get("/v1/devices?after=fffeffff-ffff-ffff-ffff-ffffffffffff&limit=3").json()
    assert [row["device_id"] for row in page["devices"]] == ids[:3]
    rest = server.get(f"/v1/devices?limit=3&after={page['next']}").json()
    assert ([row["device_id"] for row in rest["devices"]], rest["next"]) == (ids[3:], None)
    for wrong in ("limit=0", "limit=x", "limit=1001", "after=x"):
        assert server.get(f"/v1/devices?{wrong}").status == 422


def test_explain_says_what_a_device_would_get_and_why(server: RunningServer) -> None:
    """Promise 3."""
    device_id = str(uuid.uuid4())
    server.check(device_id=device_id, site_id="lab")
    seen(server, device_id, site_id="lab")
    answer = server.get(f"/v1/devices/{device_id}/explain").json()
    assert (answer["channel"], answer["channel_source"]) == ("beta", "site")
    assert answer["offers"] == [{"name": "service", "version": "1.3.0", "action": "update"}]
    assert answer["reasons"][0]["code"] == "offered"
    assert server.get(f"/v1/devices/{uuid.uuid4()}").status == 404
    assert server.get(f"/v1/devices/{device_id}/delete").status == 404
    assert server.get("/v1/devices/x").status == 422


def test_the_catalogue_is_listed_in_the_words_of_the_source_schema(server: RunningServer) -> None:
    answer = server.get("/v1/packages").json()
    by_version = {(item["component_name"], item["version"]): item for item in answer["packages"]}
    item = by_version["service", "1.2.3"]
    assert (item["release_channel"], item["target_os"], item["target_arch"]) == ("stable", "linux", "amd64")
    assert item["download_url"] == f"{server.url}/v1/packages/{SERVICE}"
    assert (item["is_active"], by_version["service", "1.1.0"]["is_active"]) == (True, False)
    assert {"file_hash_sha256", "signature_base64", "release_notes_url", "dependencies", "published_at"} <= set(item)


def test_problems_and_pending_files_are_listed_with_their_reasons(server: RunningServer) -> None:
    """L8, promise 3."""
    answer = server.get("/v1/problems").json()
    assert {item["path"]: item["code"] for item in answer["problems"]} == {"holiday.jpg": "unrecognised_name"}
    assert [item["path"] for item in answer["pending"]] == ["service-linux-amd64-9.9.9.tar.gz"]
    assert all(item["message"] and item["since"] and item["state"] for item in answer["problems"] + answer["pending"])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_agents_are_served_while_the_database_is_away(tree: Tree, tmp_path: Path, how: signal.Signals) -> None:
    """Promise 4: killed or frozen, nobody waits for it; what could not be written is written when it is back."""
    device_id = str(uuid.uuid4())
    status = {"device_id": device_id, "records": [{
        "record_id": str(uuid.uuid4()), "component_name": "ui", "trigger_source": "x", "requested_version": "1.0.0",
        "status": "success", "attempt_timestamp": "2026-01-01T00:00:00Z",
    }]}  # fmt: skip
    with running(tree.root, tmp_path / "state", database=True) as server:
        members = strike(postmaster(server.state), how)
        try:
            started = time.monotonic()
            for n in range(20):
                assert server.offered(device_id=device_id, site_id=str(n)) == {"service": "1.2.3"}
                assert server.get(f"/v1/packages/{SERVICE}").status == 200
            assert time.monotonic() - started < 5, "agents waited for the database"
            if how is signal.SIGSTOP:
                assert server.post("/v1/status", status).json()["accepted"], "the spool takes it"
                assert server.get("/v1/devices").status == 503
                server.wait_for_database("away")
                assert server.ready()["ready"] is True
        finally:
            if how is signal.SIGSTOP:
                resume(members)
        wait_until(lambda: server.post("/v1/status", status).status == 200, "records are taken again", server.log_path)
        seen(server, device_id, site_id="19")
        assert "Traceback" not in server.log


def test_tables_that_were_taken_away_are_made_again(tree: Tree, tmp_path: Path) -> None:
    """Promise 4: the database is disposable."""
    device_id = str(uuid.uuid4())
    with running(tree.root, tmp_path / "state", database=True) as server:
        at_rest(server)
        query(server.state, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        server.check(device_id=device_id, site_id="berlin")
        seen(server, device_id, site_id="berlin")


REFUSING_TRIGGER = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.site_id = 'strange' THEN RAISE EXCEPTION 'there is no such site'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON devices FOR EACH ROW EXECUTE FUNCTION refuse()
"""


def test_a_row_that_the_database_refuses_does_not_take_the_others_with_it(tree: Tree, tmp_path: Path) -> None:
    """CommandIT's own ``devices`` has constraints, and may have triggers, that we do not know."""
    ids = [str(uuid.uuid4()) for _ in range(20)]
    refused = {7: "forbidden", 11: "strange"}
    with running(tree.root, tmp_path / "state", database=True) as server:
        query(server.state, "ALTER TABLE devices ADD CHECK (site_id <> 'forbidden')")
        query(server.state, REFUSING_TRIGGER)
        for n, device_id in enumerate(ids):
            server.check(device_id=device_id, site_id=refused.get(n, "fine"))
        for n, device_id in enumerate(ids):
            assert seen(server, device_id, site_id=refused.get(n, "fine"))["registered"] is (n not in refused)
        assert ids[7] in server.log
        assert ids[11] in server.log


def test_a_question_to_a_frozen_database_ends_within_its_limit(tmp_path: Path) -> None:
    """Promise 4: on a connection that was fine a moment ago, and without waiting for the server to agree."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    source = EmbeddedPostgres(state)

    async def ask() -> None:
        database, stop = Database(source, lambda: datetime.now(UTC)), asyncio.Event()
        supervised = asyncio.create_task(database.supervise(stop))
        await database.wait_ready()

        async def work(connection: Connection) -> None:
            strike(postmaster(state), signal.SIGSTOP)
            await connection.execute("SELECT 1")

        with pytest.raises(DatabaseAway):
            async with asyncio.timeout(20):
                await database.run(work, 0.5)
        resume(family(postmaster(state)))
        stop.set()
        await supervised
        await database.close()

    try:
        asyncio.run(ask())
    finally:
        source.stop()


def test_times_are_answered_in_utc_whatever_the_session_is_set_to(tmp_path: Path) -> None:
    """Operators' scripts compare them; found behind a role with another time zone."""
    tree = Tree(tmp_path / "tree")
    with running(tree.root, tmp_path / "state", database=True, env={"PGTZ": "Asia/Karachi"}) as server:
        server.wait_for_database()
        device_id = str(uuid.uuid4())
        server.check(device_id=device_id)
        assert seen(server, device_id)["last_agent_checkin"].endswith("Z")
