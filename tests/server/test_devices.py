"""What operators ask about the fleet: filters, pages, shared ids, versions, failures (design §7, promise 3)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from support.databases import TestDatabase
from support.server import RunningServer, running, wait_until
from support.serving import fill
from support.trees import Tree

from repo_server.store.database import Database
from repo_server.store.devices import DeviceFilter, page_query
from repo_server.store.records import pattern_of

ORGS = [str(uuid.UUID(int=n + 1)) for n in range(2)]
FLEET = {
    str(uuid.UUID(int=(7 << 120) + n)): {
        "os": ("linux", "windows")[n % 2],
        "arch": "amd64",
        "release_channel": ("stable", "beta", "alpha")[n % 3],
        "org_id": ORGS[n % 2],
        "site_id": f"site-{n % 3}",
        "components": [{"name": "service", "version": f"1.{n % 3}.0"}, {"name": "ui", "version": "2.0.0"}],
        "updater_version": f"0.{n % 2}.0",
        "health": {"status": ("healthy", "degraded")[n % 2]},
    }
    for n in range(12)
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Run a server whose devices are twelve, all seen."""
    folder = tmp_path_factory.mktemp("fleet")
    with running(fill(Tree(folder / "tree")).root, folder / "state", database=True) as server:
        for device_id, fields in FLEET.items():
            server.check(device_id=device_id, **fields)
        wait_until(lambda: len(listed(server)) == len(FLEET), "all devices are known", server.log_path)
        yield server


def listed(server: RunningServer, query: str = "") -> list[str]:
    response = server.get(f"/v1/devices?limit=1000&{query}")
    assert response.status == 200, response.data
    return [row["device_id"] for row in response.json()["devices"]]


def those(**wanted: Any) -> list[str]:
    return [key for key, fields in FLEET.items() if all(fields[name] == value for name, value in wanted.items())]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("os=linux&arch=amd64", those(os="linux")),
        ("channel=beta", those(release_channel="beta")),
        ("health=degraded", those(health={"status": "degraded"})),
        (f"org_id={ORGS[1].upper()}", those(org_id=ORGS[1])),
        ("site_id=site-2", those(site_id="site-2")),
        ("component=service&version=1.1.0", [key for n, key in enumerate(FLEET) if n % 3 == 1]),
        ("component=ui", list(FLEET)),
        ("component=probe", []),
        ("component=updater&version=0.1.0", those(updater_version="0.1.0")),
        ("seen_after=2020-01-01T00:00:00Z", list(FLEET)),
        ("seen_before=2020-01-01T00:00:00%2B02:00", []),
        ("seen_before=2999-01-01T00:00:00Z&os=windows&site_id=site-1", those(os="windows", site_id="site-1")),
        ("shared_id=true", []),
        ("registered=false", []),
        ("registered=true&shared_id=false", list(FLEET)),
    ],
)
def test_devices_are_found_by_what_they_are(fleet: RunningServer, query: str, expected: list[str]) -> None:
    assert listed(fleet, query) == expected


@pytest.mark.parametrize(
    "query",
    ["os=beos", "channel=", "org_id=acme", "seen_before=yesterday", "seen_after=2026-01-01T00:00:00", "shared_id=1",
     "version=1.0.0", "colour=red", "os=linux&os=linux", "limit=0",
     "health=%00"],
)  # fmt: skip
def test_a_filter_that_means_nothing_is_refused(fleet: RunningServer, query: str) -> None:
    """Else a word spelled wrong would look like a fleet without devices, or with all of them."""
    assert fleet.get(f"/v1/devices?{query}").status == 422


def test_a_filtered_list_is_paged_without_gaps(fleet: RunningServer) -> None:
    wanted, found, after = those(os="linux"), [], ""
    while True:
        page = fleet.get(f"/v1/devices?os=linux&limit=4{after}").json()
        found += [row["device_id"] for row in page["devices"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == wanted


def test_the_channel_of_a_device_is_the_one_that_it_was_answered_for(fleet: RunningServer) -> None:
    """L31: the policy says beta for the site, whatever the agent is configured for."""
    device_id = str(uuid.uuid4())
    fleet.check(device_id=device_id, site_id="lab", release_channel="alpha")
    row = wait_until(lambda: row_of(fleet, device_id), "it is known", fleet.log_path)
    assert (row["channel"], row["channel_source"], row["reported_channel"]) == ("beta", "site", "alpha")
    fleet.check(device_id=str(uuid.uuid4()), release_channel="", os="macos", arch="arm64")
    [other] = wait_until(lambda: listed(fleet, "os=macos"), "it is known", fleet.log_path)
    row = row_of(fleet, other)
    assert (row["channel"], row["channel_source"], row["reported_channel"]) == ("stable", "default", "")


def row_of(server: RunningServer, device_id: str) -> dict[str, Any]:
    response = server.get(f"/v1/devices/{device_id}")
    found: dict[str, Any] = response.json() if response.status == 200 else {}
    return found


def test_versions_are_counted_by_channel_and_platform(fleet: RunningServer) -> None:
    found = fleet.get("/v1/versions?site_id=site-1&os=windows").json()["versions"]
    counts = {(item["component"], item["version"]): item["devices"] for item in found}
    assert counts == {("service", "1.1.0"): 2, ("ui", "2.0.0"): 2, ("updater", "0.1.0"): 2}
    assert {(item["channel"], item["os_type"], item["cpu_architecture"]) for item in found} == {
        ("beta", "windows", "amd64")
    }


def machine(name: str) -> dict[str, Any]:
    return {"attributes": {"hostname": name, "uptime": uuid.uuid4().hex}}


def having(version: str) -> dict[str, Any]:
    return {"components": [{"name": "service", "version": version}]}


A, B = machine("a"), machine("b")
STORIES = {
    "two machines": ((A, B, A, B, A), True),
    "two sets of versions": (tuple(having(version) for version in ("1.0", "1.1", "1.0", "1.1", "1.0")), True),
    "too little": ((A, B, A, B), False),
    "renamed": ((A, A, A, B, B, B, B), False),
    "renamed often": (tuple(machine(name) for name in "abcdef"), False),
    "recalled twice": (tuple(having(version) for version in ("1.0", "1.1", "1.0", "1.2", "1.0")), False),
    "busy": (tuple(machine("a") for _ in range(6)), False),
}


def test_an_id_that_two_machines_use_is_noticed(fleet: RunningServer) -> None:
    """What they report goes back and forth; what an update, a recall or a new name makes of a device does not."""
    ids = {name: str(uuid.uuid4()) for name in STORIES}
    for n in range(max(len(states) for states, _ in STORIES.values())):
        asked = {ids[name]: states[n] for name, (states, _) in STORIES.items() if n < len(states)}
        before = {device_id: row_of(fleet, device_id).get("last_agent_checkin") for device_id in asked}
        for device_id, state in asked.items():
            fleet.check(device_id=device_id, **state)
        for device_id, then in before.items():
            wait_until(
                lambda key=device_id, at=then: row_of(fleet, key).get("last_agent_checkin") != at,
                "seen",
                fleet.log_path,
            )
    found = listed(fleet, "shared_id=true")
    wrong = {item["code"]: item["message"] for item in fleet.get("/v1/problems").json()["server"]}
    assert wrong["shared_ids"].startswith("2 device ids")
    for name, (_, shared) in STORIES.items():
        assert (ids[name] in found) is shared, name
        assert (f"{ids[name]} is used by more than one machine" in fleet.log) is shared, name
        assert (row_of(fleet, ids[name])["shared_id_at"] is not None) is shared
    assert row_of(fleet, ids["two machines"])["seen_machines"] == ["linux-amd64, hostname=a", "linux-amd64, hostname=b"]


def failed(version: str, message: str, **changes: Any) -> dict[str, Any]:
    return {
        "record_id": str(uuid.uuid4()), "component_name": "service", "trigger_source": "schedule",
        "requested_version": version, "status": "failed", "error_code": "HEALTH_FAILED", "error_message": message,
        "attempt_timestamp": "2026-11-21T18:00:00Z", **changes,
    }  # fmt: skip


def test_failures_are_grouped_by_what_they_have_in_common(fleet: RunningServer) -> None:
    for n, device_id in enumerate(list(FLEET)[:6]):
        records = [
            failed(f"3.{n % 2}.0", f"GET http://127.0.0.1:80{n}/healthz: no answer after {n}.5 s"),
            failed("3.0.0", "disk is full", error_code="DISK_FULL")
            if n == 0
            else failed("3.0.0", "", status="success"),
        ]
        answer = fleet.post("/v1/status", {"device_id": device_id, "records": records}).json()
        assert len(answer["accepted"]) == 2
    found = fleet.get("/v1/failures?component=service").json()
    first, second = found["signatures"]
    assert (first["pattern"], first["attempts"], first["devices"]) == ("GET <url> no answer after <n> s", 6, 6)
    assert (first["error_code"], first["versions"]) == ("HEALTH_FAILED", {"3.0.0": 3, "3.1.0": 3})
    assert (second["error_code"], second["pattern"], second["devices"]) == ("DISK_FULL", "disk is full", 1)
    versions = {item["version"]: item for item in found["versions"]}
    assert (versions["3.0.0"]["attempts"], versions["3.0.0"]["failed"], versions["3.0.0"]["succeeded"]) == (9, 4, 5)
    assert versions["3.1.0"]["devices_failed"] == 3
    assert fleet.get("/v1/failures?since=2999-01-01T00:00:00Z").json()["signatures"] == []
    assert len(fleet.get("/v1/failures?limit=1").json()["signatures"]) == 1


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("exit code 17 after 3.25 s", "exit code <n> after <n> s"),
        ("/opt/commandit/service/bin/run: not found", "<path>: not found"),
        (r"C:\Program\x.exe, line 4", "<path>, line <n>"),
        ("device 0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d at 0xdeadbeef", "device <id> at <n>"),
        ("2026-11-20T10:00:00Z: no answer", "<time>: no answer"),
        ("2026-11-20 11:22:33.5+01:00: v1.2.3 fails", "<time>: <n> fails"),
        ("sha256 " + "AB" * 32, "sha256 <id>"),
        ("sha256 " + "ab" * 32 + "\n  differs", "sha256 <id> differs"),
        ("x" * 500, "x" * 200),
        ("", ""),
    ],
)
def test_the_pattern_of_a_message_is_what_devices_share(message: str, pattern: str) -> None:
    assert pattern_of(message) == pattern


def test_the_pattern_of_a_message_costs_little_whatever_it_says() -> None:
    """It is made while others wait: looking for a URL at each word of 4 KiB took 50 ms, and a request may have 240."""

    def cost(message: str) -> float:
        begun = time.process_time()
        for _ in range(10):
            pattern_of(message)
        return time.process_time() - begun

    assert pattern_of("a." * 2048) == "a." * 100
    assert cost("a." * 2048) < 5 * cost("x " * 2048)


MANY = """
INSERT INTO devices (device_id, name, os_type, cpu_architecture, channel, agent_health_status, org_id, site_id,
    agent_updater_version, components, last_agent_checkin, last_seen_day)
SELECT md5(n::text)::uuid, n::text, (ARRAY['linux', 'windows', 'macos'])[1 + n % 3], 'amd64',
    (ARRAY['stable', 'stable', 'beta', 'alpha'])[1 + n % 4], CASE WHEN n % 500 = 0 THEN 'degraded' ELSE 'healthy' END,
    md5((n % 50)::text)::uuid, 'site-' || n % 1000, '1.' || n % 5 || '.0',
    jsonb_build_array(jsonb_build_object('name', 'service', 'version', '1.' || n % 100 || '.0')),
    now() - n * interval '1 minute', (now() - n * interval '1 minute')::date
FROM generate_series(1, 100000) AS n;
ANALYZE devices;
"""


def test_no_list_reads_all_of_a_hundred_thousand_devices(database: TestDatabase) -> None:
    """Each filter finds its page by an index (5 s, most of it for making the devices)."""
    now = datetime.now(UTC)
    filters = [
        DeviceFilter(),
        DeviceFilter(os="linux", arch="amd64"),
        DeviceFilter(channel="alpha"),
        DeviceFilter(health="degraded"),
        DeviceFilter(org_id=str(uuid.UUID(int=5))),
        DeviceFilter(site_id="site-7", channel="stable"),
        DeviceFilter(component="service", version="1.7.0"),
        DeviceFilter(component="updater", version="1.4.0"),
        DeviceFilter(seen_before=now - timedelta(days=69)),
        DeviceFilter(seen_after=now - timedelta(hours=1)),
        DeviceFilter(shared_id=True),
        DeviceFilter(registered=True, os="windows"),
    ]

    async def migrated(_: Database) -> None:
        return

    database.run(migrated)
    database.query(MANY)
    with psycopg.connect(database.url) as connection:
        for wanted in filters:
            for after in (None, str(uuid.UUID(int=2**127))):
                query, values = page_query(wanted, after, 100)
                plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}", values))
                assert "Seq Scan on devices" not in plan, f"{wanted} {after}\n{plan}"
