"""The database's steps from version to version, run again where somebody took a table away (promise 4)."""

from __future__ import annotations

import uuid

from support.databases import TestDatabase

from repo_server.store.migrate import migrate


def test_steps_that_are_run_again_for_one_table_leave_the_rows_of_the_others_alone(database: TestDatabase) -> None:
    """Copying the keys of years of logs again took minutes in which nothing was recorded."""
    migrate(database.url)
    database.query(
        f"""
        INSERT INTO agent_update_status_log (device_id, record_id, component_name, requested_version, status)
            VALUES ('{uuid.uuid4()}', '{uuid.uuid4()}', 'ui', '1.0.0', 'success');
        SELECT setval('agent_update_log_ids', 1000);
        DROP TABLE event_log
        """  # noqa: S608 -- UUIDs
    )
    migrate(database.url, from_start=True)
    assert database.query("SELECT count(*) FROM event_log") == [(0,)]
    assert database.query("SELECT count(*) FROM agent_update_record_ids") == [(0,)], "the log was not read"
    assert database.query("SELECT nextval('agent_update_log_ids')") == [(1001,)]
    database.query("DROP TABLE agent_update_record_ids")
    migrate(database.url, from_start=True)
    assert database.query("SELECT count(*) FROM agent_update_record_ids") == [(1,)], "made again from the log"
