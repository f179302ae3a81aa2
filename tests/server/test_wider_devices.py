"""On a database with CommandIT's own, wider ``devices`` table: the source schema, as far as it stands alone."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from support.databases import TestDatabase
from support.server import RunningServer, running, wait_until
from support.trees import Tree

from repo_server.store.migrate import migrate

SOURCE_TABLES = """
CREATE TABLE organizations (org_id uuid PRIMARY KEY, name text);
CREATE TABLE locations (location_id uuid PRIMARY KEY);
CREATE TABLE devices (
    device_id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations (org_id) ON DELETE CASCADE,
    custodian_org_id uuid NULL REFERENCES organizations (org_id) ON DELETE SET NULL,
    assignment_status varchar(30) NULL CHECK (assignment_status IN ('InStock', 'Reserved', 'LoanedOut', 'RentedOut')),
    managed_by_server_device_id uuid NULL REFERENCES devices (device_id) ON DELETE SET NULL,
    azure_arc_resource_id text NULL UNIQUE,
    intune_device_id text NULL,
    sync_source varchar(20) NULL CHECK (sync_source IN ('Agent', 'Intune', 'Manual', 'OtherIntegration')),
    name varchar(255) NOT NULL,
    smbios_uuid uuid NULL,
    device_type varchar(100) NOT NULL,
    is_virtual boolean NOT NULL DEFAULT false,
    status varchar(50) NOT NULL DEFAULT 'Active' CHECK (status IN
        ('Active', 'Inactive', 'InRepair', 'Disposed', 'Archived', 'Lost', 'Stolen', 'PendingMatch')),
    location_id uuid REFERENCES locations (location_id) ON DELETE SET NULL,
    serial_number varchar(255),
    asset_tag varchar(100),
    cpu_architecture varchar(50),
    agent_version varchar(50) NULL,
    agent_service_version varchar(50) NULL,
    agent_ui_version varchar(50) NULL,
    agent_probe_version varchar(50) NULL,
    agent_updater_version varchar(50) NULL,
    agent_last_full_sync timestamptz NULL,
    agent_health_status varchar(20) NULL,
    agent_last_health_check timestamptz NULL,
    agent_health_details text NULL,
    is_probe boolean DEFAULT false,
    last_agent_checkin timestamptz NULL,
    inventory_detail_level varchar(20) NOT NULL DEFAULT 'Normal',
    ip_address inet,
    os_type varchar(50),
    os_version varchar(100),
    configuration jsonb,
    created_at timestamptz NOT NULL DEFAULT current_timestamp,
    updated_at timestamptz,
    CONSTRAINT devices_org_serial_unique UNIQUE NULLS NOT DISTINCT (org_id, serial_number),
    CONSTRAINT devices_org_asset_tag_unique UNIQUE NULLS NOT DISTINCT (org_id, asset_tag),
    UNIQUE NULLS NOT DISTINCT (org_id, intune_device_id)
);
CREATE INDEX idx_devices_org_id ON devices (org_id);
CREATE INDEX idx_devices_last_checkin ON devices (last_agent_checkin);
CREATE INDEX idx_devices_status ON devices (status);
CREATE TABLE agent_update_status_log (
    update_log_id bigserial PRIMARY KEY,
    device_id uuid NOT NULL REFERENCES devices (device_id) ON DELETE CASCADE,
    component_name varchar(50) NOT NULL CHECK (component_name IN ('service', 'ui', 'probe', 'updater', 'agentbundle')),
    trigger_source varchar(50) NULL,
    requested_version varchar(50) NOT NULL,
    current_version varchar(50) NULL,
    status varchar(20) NOT NULL CHECK (status IN
        ('pending', 'downloading', 'installing', 'success', 'failed', 'cancelled', 'skipped')),
    attempt_timestamp timestamptz NOT NULL DEFAULT current_timestamp,
    completion_timestamp timestamptz NULL,
    error_message text NULL,
    details jsonb NULL
);
CREATE INDEX idx_agentupdatelog_device_time ON agent_update_status_log (device_id, attempt_timestamp DESC);
CREATE INDEX idx_agentupdatelog_status ON agent_update_status_log (status);
"""
ORG = "0b0b0b0b-0000-4000-8000-000000000001"
KNOWN = "0c0c0c0c-0000-4000-8000-000000000001"
OTHER = "0c0c0c0c-0000-4000-8000-000000000002"


@pytest.fixture
def wider(database: TestDatabase) -> TestDatabase:
    """Make CommandIT's tables with two devices and a record."""
    database.query(SOURCE_TABLES)
    database.query(
        f"""
        INSERT INTO organizations VALUES ('{ORG}', 'acme');
        INSERT INTO devices (device_id, org_id, name, device_type, serial_number, asset_tag, intune_device_id)
        VALUES ('{KNOWN}', '{ORG}', 'RECEPTION-1', 'Workstation', 'S1', 'A1', 'I1'),
               ('{OTHER}', '{ORG}', 'RECEPTION-2', 'Workstation', 'S2', 'A2', 'I2');
        INSERT INTO agent_update_status_log (device_id, component_name, requested_version, status)
        VALUES ('{KNOWN}', 'agentbundle', '0.9.0', 'success');
        """  # noqa: S608 -- constants
    )
    return database


def seen(server: RunningServer, device_id: str, **expected: Any) -> dict[str, Any]:
    def written() -> dict[str, Any] | None:
        response = server.get(f"/v1/devices/{device_id}")
        row = response.json() if response.status == 200 else {}
        return row if row and all(row[name] == value for name, value in expected.items()) else None

    found: dict[str, Any] = wait_until(written, f"{device_id} is {expected}", server.log_path)
    return found


def test_commandits_rows_are_updated_and_all_other_devices_are_kept_beside_them(
    wider: TestDatabase, tree: Tree, tmp_path: Path
) -> None:
    """A row there needs an organisation, a serial number and more that an agent does not know: we never make one."""
    strangers = [str(uuid.uuid4()) for _ in range(3)]
    report = {
        "record_id": str(uuid.uuid4()), "component_name": "ui", "trigger_source": "x", "requested_version": "1.0.0",
        "status": "failed", "attempt_timestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    with running(tree.root, tmp_path / "state", "--database-url", wider.url) as server:
        server.wait_for_database()
        server.check(device_id=KNOWN, components=[{"name": "ui", "version": "2.0.0"}], org_id=str(uuid.uuid4()))
        server.check(device_id=strangers[0])
        server.check(device_id=strangers[1], org_id=ORG)
        assert server.post("/v1/status", {"device_id": strangers[2], "records": [report]}).json()["accepted"]
        row = seen(server, KNOWN, agent_ui_version="2.0.0", registered=True)
        assert (row["name"], row["status"], row["org_id"]) == ("RECEPTION-1", "Active", ORG)
        assert [attempt["component_name"] for attempt in row["attempts"]] == ["agentbundle"]
        for device_id in strangers[:2]:
            assert seen(server, device_id, registered=False)["os_type"] == "linux"
        assert seen(server, strangers[2], registered=False)["attempts"][0]["record_id"] == report["record_id"]
        listed = [row["device_id"] for row in server.get("/v1/devices").json()["devices"]]
        assert listed == sorted([KNOWN, OTHER, *strangers])

        # CommandIT makes the row: it is taken up, and the device is not kept twice.
        wider.query(
            "INSERT INTO devices (device_id, org_id, name, device_type, serial_number, asset_tag, intune_device_id)"
            " VALUES (%s, %s, 'NEW', 'Workstation', 'S3', 'A3', 'I3')",
            strangers[0],
            ORG,
        )
        server.check(device_id=strangers[0], components=[{"name": "ui", "version": "3.0.0"}])
        assert seen(server, strangers[0], agent_ui_version="3.0.0", registered=True)["name"] == "NEW"
        assert wider.query("SELECT count(*) FROM unregistered_devices") == [(2,)]
        assert wider.query("SELECT count(*) FROM devices") == [(3,)]
        assert "Traceback" not in server.log
        assert "refused" not in server.log


def test_a_device_that_a_policy_of_its_table_refuses_is_kept_beside_it_with_its_records(
    database: TestDatabase, tree: Tree, tmp_path: Path
) -> None:
    """PostgreSQL gives it the code of missing rights: the whole database was done without, and records were refused."""
    migrate(database.url)
    name = f"r{uuid.uuid4().hex[:12]}"
    database.query(
        f"""
        CREATE ROLE {name} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {name};
        GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name};
        ALTER TABLE devices ENABLE ROW LEVEL SECURITY;
        CREATE POLICY others ON devices USING (device_id <> '{KNOWN}')
        """
    )
    report = {
        "component_name": "ui", "trigger_source": "x", "requested_version": "1.0.0", "status": "failed",
        "attempt_timestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    url = database.url.replace("user=postgres", f"user={name}")
    with running(tree.root, tmp_path / "state", "--database-url", url) as server:
        server.wait_for_database()
        for device_id in (OTHER, KNOWN):
            record_id = str(uuid.uuid4())
            answer = server.post(
                "/v1/status", {"device_id": device_id, "records": [{**report, "record_id": record_id}]}
            )
            assert answer.json() == {"accepted": [record_id], "rejected": []}
        for device_id in (OTHER, KNOWN):
            server.check(device_id=device_id)
        for device_id in (OTHER, KNOWN):
            row = seen(server, device_id, os_type="linux", registered=device_id == OTHER)
            assert len(row["attempts"]) == 1
        assert server.ready()["database"]["state"] == "ready"


def test_a_device_that_others_refer_to_keeps_its_row_and_says_which_it_was(
    wider: TestDatabase, tree: Tree, tmp_path: Path
) -> None:
    """A foreign key on the old id forbids giving the row another one."""
    wider.query("UPDATE devices SET managed_by_server_device_id = %s WHERE device_id = %s", KNOWN, OTHER)
    new, moved = str(uuid.uuid4()), str(uuid.uuid4())
    with running(tree.root, tmp_path / "state", "--database-url", wider.url) as server:
        server.wait_for_database()
        server.check(device_id=new, previous_ids=[f"win-{KNOWN}"])
        assert seen(server, new, registered=False)["previous_ids"] == [KNOWN]
        server.check(device_id=moved, previous_ids=[OTHER])
        assert seen(server, moved, registered=True)["name"] == "RECEPTION-2"
        assert wider.query("SELECT device_id::text FROM devices ORDER BY name") == [(KNOWN,), (moved,)]
