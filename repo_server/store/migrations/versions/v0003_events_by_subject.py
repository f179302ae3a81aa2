"""Indexes for what operators ask the event log: what happened to one subject, and events of one kind (design §7)."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create what is missing."""
    for column in ("subject", "kind"):
        op.execute(
            f"CREATE INDEX IF NOT EXISTS idx_event_log_by_{column}"
            f" ON event_log ({column}, occurred_at DESC, event_id DESC)"
        )


def downgrade() -> None:
    """Refuse: what devices reported is not thrown away by a version change."""
    raise NotImplementedError("migrations only go forward; restore a backup to go back")
