"""Logs in monthly partitions, devices that CommandIT does not know, evidence of shared ids (design §7).

Logs are keyed by when the server received them: a device's own clock may say anything. A unique ``record_id`` cannot
span partitions, so the idempotency keys have a table of their own. Every primary key of a device's rows begins with
``device_id``, and nothing refers to ``devices``: that is what distributing by ``device_id`` needs.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NEW_DEVICE_COLUMNS = {
    "channel_source": "varchar(20)",
    "last_seen_day": "date",
    "seen_machine": "text",
    "seen_machine_before": "text",
    "seen_versions": "text",
    "seen_versions_before": "text",
    "seen_returns": "integer",
    "seen_returns_since": "timestamptz",
    "shared_id_at": "timestamptz",
}

UNREGISTERED_DEVICES = f"""
CREATE TABLE IF NOT EXISTS unregistered_devices (
    device_id uuid PRIMARY KEY,
    org_id uuid,
    site_id varchar(128),
    name varchar(255),
    device_type varchar(100),
    status varchar(50) NOT NULL DEFAULT 'active',
    os_type varchar(50),
    os_version varchar(100),
    cpu_architecture varchar(50),
    agent_service_version varchar(50),
    agent_ui_version varchar(50),
    agent_probe_version varchar(50),
    agent_updater_version varchar(50),
    agent_health_status varchar(20),
    agent_last_health_check timestamptz,
    agent_health_details text,
    last_agent_checkin timestamptz,
    created_at timestamptz NOT NULL DEFAULT current_timestamp,
    updated_at timestamptz,
    channel varchar(20),
    reported_channel varchar(20),
    components jsonb,
    attributes jsonb,
    metadata jsonb,
    previous_ids uuid[],
    {", ".join(f"{name} {kind}" for name, kind in NEW_DEVICE_COLUMNS.items())}
) WITH (fillfactor = 70)
"""

# Foreign: somebody else's wider table, which asks for values that only its owner knows.
DEVICES_ARE_OURS = """
NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'devices'::regclass AND attnum > 0 AND NOT attisdropped
    AND attnotnull AND NOT atthasdef AND attidentity = '' AND attname <> 'device_id')
"""

UPDATE_LOG = """
CREATE TABLE agent_update_status_log (
    update_log_id bigint NOT NULL DEFAULT nextval('agent_update_log_ids'),
    device_id uuid NOT NULL,
    record_id uuid,
    component_name varchar(50) NOT NULL,
    trigger_source varchar(50),
    requested_version varchar(64) NOT NULL,
    current_version varchar(64),
    status varchar(20) NOT NULL CHECK (status IN
        ('pending', 'downloading', 'installing', 'success', 'failed', 'cancelled', 'skipped')),
    attempt_timestamp timestamptz NOT NULL DEFAULT current_timestamp,
    completion_timestamp timestamptz,
    error_code varchar(64),
    error_message text,
    error_pattern text,
    details jsonb,
    received_at timestamptz NOT NULL DEFAULT current_timestamp,
    PRIMARY KEY (device_id, received_at, update_log_id)
) PARTITION BY RANGE (received_at)
"""
UPDATE_LOG_COLUMNS = """
device_id, record_id, component_name, trigger_source, requested_version, current_version, status,
attempt_timestamp, completion_timestamp, error_code, error_message, details
"""

EVENT_LOG = """
CREATE TABLE event_log (
    event_id uuid NOT NULL DEFAULT gen_random_uuid(),
    occurred_at timestamptz NOT NULL DEFAULT current_timestamp,
    kind varchar(50) NOT NULL,
    subject text,
    actor text,
    source text,
    details jsonb,
    PRIMARY KEY (event_id, occurred_at)
) PARTITION BY RANGE (occurred_at)
"""


def upgrade() -> None:
    """Convert what is there, with its rows, and create what is missing."""
    _devices()
    if _convert(
        "agent_update_status_log",
        ("CREATE SEQUENCE IF NOT EXISTS agent_update_log_ids", UPDATE_LOG),
        f"update_log_id, {UPDATE_LOG_COLUMNS}, received_at",
        f"update_log_id, {UPDATE_LOG_COLUMNS}, coalesce(received_at, attempt_timestamp)",
    ):
        op.execute(
            "SELECT setval('agent_update_log_ids', greatest((SELECT last_value FROM agent_update_log_ids),"
            " (SELECT coalesce(max(update_log_id), 1) FROM agent_update_status_log)))"
        )
    op.execute(
        "CREATE INDEX IF NOT EXISTS idx_agentupdatelog_device_time"
        " ON agent_update_status_log (device_id, attempt_timestamp DESC)"
    )
    op.execute(
        "CREATE INDEX IF NOT EXISTS idx_agentupdatelog_failed"
        " ON agent_update_status_log (received_at) WHERE status = 'failed'"
    )
    _record_ids()
    _convert(
        "event_log",
        (EVENT_LOG,),
        "occurred_at, kind, subject, actor, details",
        "occurred_at, kind, subject, actor, details",
    )
    op.execute("CREATE INDEX IF NOT EXISTS idx_event_log_newest ON event_log (occurred_at DESC, event_id)")
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS event_states (
            subject text PRIMARY KEY,
            state jsonb NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS expired_partitions (
            partition_name text PRIMARY KEY,
            looks integer NOT NULL,
            looked_at timestamptz NOT NULL
        )
        """
    )


def _devices() -> None:
    for name, kind in NEW_DEVICE_COLUMNS.items():
        op.execute(f"ALTER TABLE devices ADD COLUMN IF NOT EXISTS {name} {kind}")
    op.execute(UNREGISTERED_DEVICES)
    # Check-ins change last_agent_checkin every time: without an index on it, and with room on the page, PostgreSQL
    # writes the new row beside the old one and touches no index (HOT). Days are indexed instead.
    op.execute(
        f"""
        DO $$ BEGIN IF {DEVICES_ARE_OURS} THEN
            DROP INDEX IF EXISTS idx_devices_last_checkin;
            ALTER TABLE devices SET (fillfactor = 70);
        END IF; END $$
        """
    )
    op.execute(
        "UPDATE devices SET last_seen_day = (last_agent_checkin AT TIME ZONE 'UTC')::date"
        " WHERE last_seen_day IS NULL AND last_agent_checkin IS NOT NULL AND isfinite(last_agent_checkin)"
    )
    for table, prefix in (("devices", "idx_devices"), ("unregistered_devices", "idx_unregistered")):
        for name, columns in (
            ("seen_day", "last_seen_day, device_id"),
            ("platform", "os_type, cpu_architecture, device_id"),
            ("channel", "channel, device_id"),
            ("health", "agent_health_status, device_id"),
            ("org", "org_id, device_id"),
            ("site", "site_id, device_id"),
            ("updater", "agent_updater_version, device_id"),
        ):
            op.execute(f"CREATE INDEX IF NOT EXISTS {prefix}_by_{name} ON {table} ({columns})")
        op.execute(f"CREATE INDEX IF NOT EXISTS {prefix}_components ON {table} USING gin (components jsonb_path_ops)")
        op.execute(f"CREATE INDEX IF NOT EXISTS {prefix}_shared ON {table} (device_id) WHERE shared_id_at IS NOT NULL")


def _record_ids() -> None:
    known = _kind_of("agent_update_record_ids") is not None
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS agent_update_record_ids (
            device_id uuid NOT NULL,
            record_id uuid NOT NULL,
            received_at timestamptz NOT NULL,
            PRIMARY KEY (device_id, record_id)
        )
        """
    )
    op.execute("CREATE INDEX IF NOT EXISTS idx_record_ids_age ON agent_update_record_ids (received_at)")
    if known:
        # All steps are run again whenever a table is missing: that must not read years of logs each time.
        return
    op.execute(
        """
        INSERT INTO agent_update_record_ids (device_id, record_id, received_at)
        SELECT device_id, record_id, received_at FROM agent_update_status_log WHERE record_id IS NOT NULL
        ON CONFLICT DO NOTHING
        """
    )


def _kind_of(table: str) -> str | None:
    """Return ``r`` for a plain table, ``p`` for a partitioned one, ``None`` if there is none."""
    found = op.get_bind().exec_driver_sql("SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)", (table,))
    kind: str | None = found.scalar()
    return kind


def _convert(table: str, create: tuple[str, ...], columns: str, values: str) -> bool:
    """Replace a plain table by a partitioned one with its rows; return whether that was not done before."""
    if _kind_of(table) == "p":
        op.execute(f"CREATE TABLE IF NOT EXISTS {table}_default PARTITION OF {table} DEFAULT")
        return False
    op.execute(f"ALTER TABLE {table} RENAME TO {table}_before_0002")
    op.execute(f"ALTER TABLE {table}_before_0002 RENAME CONSTRAINT {table}_pkey TO {table}_before_0002_pkey")
    for statement in create:
        op.execute(statement)
    op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    op.execute(f"INSERT INTO {table} ({columns}) SELECT {values} FROM {table}_before_0002")  # noqa: S608 -- constants
    op.execute(f"DROP TABLE {table}_before_0002")
    return True


def downgrade() -> None:
    """Refuse: what devices reported is not thrown away by a version change."""
    raise NotImplementedError("migrations only go forward; restore a backup to go back")
