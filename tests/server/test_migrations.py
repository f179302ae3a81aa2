"""The database's steps from version to version, run again where somebody took a table away (promise 4)."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from support.databases import Cluster, TestDatabase
from support.server import check_body

from repo_server.core.channels import AssignedChannel, ChannelSource
from repo_server.core.model import Channel
from repo_server.core.wire import CheckRequest
from repo_server.store import DatabaseAway
from repo_server.store.checkins import CheckInWriter
from repo_server.store.counters import Counters
from repo_server.store.database import Database
from repo_server.store.devices import DeviceReader
from repo_server.store.migrate import migrate

SEEN = datetime(2026, 11, 2, 3, 4, 5, tzinfo=UTC)


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


def test_tables_of_a_newer_version_are_left_alone_and_that_is_said(database: TestDatabase) -> None:
    """A server that goes on beside a newer one may miss what that has changed; it must not take the tables back."""
    migrate(database.url)
    database.query("UPDATE updater_schema_revision SET version_num = '0999'; DROP TABLE event_log")
    for from_start in (False, True):
        with pytest.raises(DatabaseAway, match="revision 0999 by a newer version of this program"):
            migrate(database.url, from_start=from_start)
    assert database.query("SELECT version_num FROM updater_schema_revision") == [("0999",)]
    assert database.query("SELECT to_regclass('event_log')") == [(None,)]


def test_commandits_own_migrations_keep_their_place(database: TestDatabase) -> None:
    """Alembic's table of revisions is called the same in every program that does not give it a name."""
    database.query("CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('f00')")
    migrate(database.url)
    migrate(database.url, from_start=True)
    assert database.query("SELECT version_num FROM alembic_version") == [("f00",)]


@pytest.mark.parametrize(
    "table",
    [
        "devices (device_id text PRIMARY KEY)",
        "event_log (message text)",
        "devices (device_id uuid PRIMARY KEY, components text)",
    ],
)
def test_a_table_of_another_form_under_one_of_our_names_is_said(database: TestDatabase, table: str) -> None:
    database.query(f"CREATE TABLE {table}")
    with pytest.raises(DatabaseAway, match="a table of another form seems to have one of the names devices,"):
        migrate(database.url)


def test_a_database_that_is_set_to_other_encodings_and_forms_is_read_all_the_same(postgres: Cluster) -> None:
    database = postgres.new("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    name = database.query("SELECT current_database()")[0][0]
    name = name if isinstance(name, str) else name.decode()
    database.query(
        f"ALTER DATABASE {name} SET datestyle TO 'SQL, DMY'; ALTER DATABASE {name} SET timezone TO 'Asia/Tokyo'"
    )
    device_id = str(uuid.uuid4())

    async def work(opened: Database) -> dict[str, Any] | None:
        request = msgspec.json.decode(json.dumps(check_body(attributes={"hostname": "Größe-日本"})), type=CheckRequest)
        writer = CheckInWriter(opened, Counters())
        writer.put(device_id, (), request, AssignedChannel(Channel.STABLE, ChannelSource.AGENT), SEEN)
        await writer.flush()
        return await DeviceReader(opened).get(device_id)

    row = database.run(work)
    assert row is not None
    assert (row["attributes"], row["last_agent_checkin"]) == ({"hostname": "Größe-日本"}, SEEN)
