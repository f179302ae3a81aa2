"""A whole fleet that changes the form of its ids at once (L53), in a real PostgreSQL."""

from __future__ import annotations

import uuid

from support.databases import TestDatabase

from repo_server.store.database import Database
from repo_server.store.identity import AT_ONCE, rename


def test_a_fleet_that_changes_its_ids_moves_a_few_devices_at_a_time_each_with_its_history(
    database: TestDatabase,
) -> None:
    """One transaction for a batch of a thousand took longer than any may, and was begun again for ever."""
    count = 2 * AT_ONCE + 1
    changes = {str(uuid.UUID(int=2000 + n)): [str(uuid.UUID(int=n)), str(uuid.uuid4())] for n in range(1, count + 1)}

    async def work(opened: Database) -> None:
        database.query(
            f"""
            INSERT INTO devices (device_id) SELECT lpad(to_hex(n), 32, '0')::uuid FROM generate_series(1, {count}) AS n;
            INSERT INTO agent_update_status_log (device_id, component_name, requested_version, status)
                SELECT device_id, 'ui', '1.0.0', 'success' FROM devices
            """  # noqa: S608 -- a number
        )
        await rename(opened, changes)
        await rename(opened, changes)

    database.run(work)
    moved = database.query("SELECT device_id::text, previous_ids[1]::text FROM devices WHERE previous_ids IS NOT NULL")
    assert dict(moved) == {new: old for new, (old, _) in changes.items()}
    assert database.query("SELECT count(DISTINCT xmin::text) FROM devices") == [(3,)], "transactions"
    told = database.query("SELECT DISTINCT device_id::text FROM agent_update_status_log")
    assert {row[0] for row in told} == changes.keys()
