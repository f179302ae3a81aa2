"""Indexes for devices that had another id: a late report is one of theirs (L53, design §7)."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create what is missing."""
    for table, prefix in (("devices", "idx_devices"), ("unregistered_devices", "idx_unregistered")):
        op.execute(
            f"CREATE INDEX IF NOT EXISTS {prefix}_former ON {table} USING gin (previous_ids)"
            " WHERE previous_ids IS NOT NULL"
        )


def downgrade() -> None:
    """Refuse: what devices reported is not thrown away by a version change."""
    raise NotImplementedError("migrations only go forward; restore a backup to go back")
