"""What the store did, as plain numbers since the start; for metrics, ``/readyz`` and conditions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counts of one process; only the store writes them."""

    records_stored: int = 0
    """Acknowledged out of the database."""
    records_spooled: int = 0
    """Acknowledged out of the spool."""
    records_replayed: int = 0
    """From the spool into the database."""
    records_refused: int = 0
    """The database will never take them; before the acknowledgement, so the agent was told."""
    records_lost: int = 0
    """Acknowledged out of the spool and then refused by the database; they are in ``refused.jsonl``."""
    requests_turned_away: int = 0
    """Neither database nor spool could take them; agents keep their records and come back."""
    record_batches: int = 0
    """Commits of records."""
    last_record_batch: int = 0
    check_ins_written: int = 0
    check_ins_dropped: int = 0
    """The database was away too long, or refused them; they come again."""
    check_in_batches: int = 0
    last_check_in_batch: int = 0
    spool_full: bool = False
    failing: str | None = None
    """Why the last write failed, though the database answers; ``None`` after one that worked."""
