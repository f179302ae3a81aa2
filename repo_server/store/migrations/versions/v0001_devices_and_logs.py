"""Devices, update log and event log (design §7).

CommandIT's own, wider ``devices`` may be there already: then only the columns that are missing are added.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DEVICE_COLUMNS = {
    "org_id": "uuid",
    "site_id": "varchar(128)",
    "name": "varchar(255)",
    "device_type": "varchar(100)",
    "status": "varchar(50) NOT NULL DEFAULT 'active'",
    "os_type": "varchar(50)",
    "os_version": "varchar(100)",
    "cpu_architecture": "varchar(50)",
    "agent_version": "varchar(50)",
    "agent_service_version": "varchar(50)",
    "agent_ui_version": "varchar(50)",
    "agent_probe_version": "varchar(50)",
    "agent_updater_version": "varchar(50)",
    "agent_last_full_sync": "timestamptz",
    "agent_health_status": "varchar(20)",
    "agent_last_health_check": "timestamptz",
    "agent_health_details": "text",
    "last_agent_checkin": "timestamptz",
    "created_at": "timestamptz NOT NULL DEFAULT current_timestamp",
    "updated_at": "timestamptz",
    "channel": "varchar(20) CHECK (channel IN ('stable', 'beta', 'alpha'))",
    "reported_channel": "varchar(20)",
    "components": "jsonb",
    "attributes": "jsonb",
    "metadata": "jsonb",
    "previous_ids": "uuid[]",
}


def upgrade() -> None:
    """Create what is missing."""
    op.execute("CREATE TABLE IF NOT EXISTS devices (device_id uuid PRIMARY KEY)")
    for name, kind in DEVICE_COLUMNS.items():
        op.execute(f"ALTER TABLE devices ADD COLUMN IF NOT EXISTS {name} {kind}")
    op.execute("CREATE INDEX IF NOT EXISTS idx_devices_last_checkin ON devices (last_agent_checkin)")
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS agent_update_status_log (
            update_log_id bigserial PRIMARY KEY,
            device_id uuid NOT NULL REFERENCES devices (device_id) ON DELETE CASCADE ON UPDATE CASCADE,
            component_name varchar(50) NOT NULL,
            trigger_source varchar(50),
            requested_version varchar(64) NOT NULL,
            current_version varchar(64),
            status varchar(20) NOT NULL CHECK (status IN
                ('pending', 'downloading', 'installing', 'success', 'failed', 'cancelled', 'skipped')),
            attempt_timestamp timestamptz NOT NULL DEFAULT current_timestamp,
            completion_timestamp timestamptz,
            error_message text,
            details jsonb
        )
        """
    )
    for column in ("record_id uuid", "error_code varchar(64)", "received_at timestamptz DEFAULT current_timestamp"):
        op.execute(f"ALTER TABLE agent_update_status_log ADD COLUMN IF NOT EXISTS {column}")
    op.execute(
        """
        DO $$ BEGIN
            -- Partitioned (0002) when all steps are run again because somebody dropped another table.
            IF (SELECT relkind FROM pg_class WHERE oid = 'agent_update_status_log'::regclass) = 'r' THEN
                CREATE UNIQUE INDEX IF NOT EXISTS idx_agentupdatelog_record ON agent_update_status_log (record_id);
                CREATE INDEX IF NOT EXISTS idx_agentupdatelog_status ON agent_update_status_log (status);
            END IF;
        END $$
        """
    )
    op.execute(
        "CREATE INDEX IF NOT EXISTS idx_agentupdatelog_device_time"
        " ON agent_update_status_log (device_id, attempt_timestamp DESC)"
    )
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS event_log (
            event_id bigserial PRIMARY KEY,
            occurred_at timestamptz NOT NULL DEFAULT current_timestamp,
            kind varchar(50) NOT NULL,
            subject text,
            actor text,
            details jsonb
        )
        """
    )
    op.execute("CREATE INDEX IF NOT EXISTS idx_event_log_time ON event_log (occurred_at DESC)")


def downgrade() -> None:
    """Refuse: what devices reported is not thrown away by a version change."""
    raise NotImplementedError("migrations only go forward; restore a backup to go back")
