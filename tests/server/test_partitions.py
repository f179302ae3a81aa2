"""The logs' tables in a real PostgreSQL: upgraded with their rows, by month, and old months out (design §7)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.databases import TestDatabase

from repo_server.core.wire import UpdateRecord, UpdateStatus
from repo_server.store.database import Database
from repo_server.store.entries import Records, writing
from repo_server.store.looks import LOOKS
from repo_server.store.migrate import migrate
from repo_server.store.partitions import LOGS, expire, month_named, name_of, prepare, redate, shifted
from repo_server.store.upkeep import Upkeep

LOG = LOGS[0]
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def record(**changes: object) -> UpdateRecord:
    fields: dict[str, object] = {
        "record_id": uuid.uuid4(),
        "component_name": "service",
        "trigger_source": "schedule",
        "requested_version": "1.2.3",
        "status": UpdateStatus.SUCCESS,
        "attempt_timestamp": NOW,
    }
    return UpdateRecord(**(fields | changes))  # type: ignore[arg-type]  # as the fields above


def received(*months: str) -> list[Records]:
    """Return a record for each instant, received then."""
    return [
        Records(str(uuid.uuid4()), datetime.fromisoformat(text).replace(tzinfo=UTC), (record(),)) for text in months
    ]


def rows_by_table(database: TestDatabase) -> dict[str, int]:
    found = database.query("SELECT tableoid::regclass::text, count(*) FROM agent_update_status_log GROUP BY 1")
    return {str(name).removeprefix("agent_update_status_log_"): count for name, count in found}


def looks(
    database: TestDatabase, times: int, now: datetime, keep: int = 2, apart: timedelta = HOUR, look: Any = expire
) -> list[str]:
    """Look several times, an hour apart, and return what was done."""

    async def work(opened: Database) -> list[str]:
        done = []
        for n in range(times):
            moment = now + n * apart
            done += await opened.run(lambda connection, at=moment: look(connection, LOG, at, keep))
        return done

    return database.run(work)


def prepared(database: TestDatabase, now: datetime = NOW, keep: int = 13) -> list[str]:
    return database.run(lambda opened: opened.run(lambda connection: prepare(connection, LOG, now, keep)))


def store(database: TestDatabase, entries: list[Records]) -> None:
    database.run(lambda opened: opened.run(writing(entries)))


FIRST_REVISION_ROWS = """
INSERT INTO devices (device_id, name, last_agent_checkin) VALUES
    ('00000000-0000-4000-8000-000000000001', 'one', '2026-11-20 23:30:00+00');
INSERT INTO agent_update_status_log (device_id, component_name, requested_version, status, record_id, received_at,
    error_message, details, attempt_timestamp)
SELECT '00000000-0000-4000-8000-000000000001', 'service', '1.0.' || n, 'failed', gen_random_uuid(),
    '2026-09-30 23:59:59.5+00'::timestamptz + n * interval '1 month', 'broken', '{"n": 1}', '1970-01-01Z'
FROM generate_series(0, 2) AS n;
INSERT INTO agent_update_status_log (device_id, component_name, requested_version, status, received_at)
    VALUES ('00000000-0000-4000-8000-000000000001', 'ui', '9.9.9', 'success', NULL);
INSERT INTO event_log (kind, subject, actor) VALUES ('publish', 'service-1.0.0', 'ana');
"""


def test_the_first_revision_is_upgraded_with_its_rows(database: TestDatabase) -> None:
    migrate(database.url, to="0001")
    database.query(FIRST_REVISION_ROWS)
    before = database.query(
        "SELECT update_log_id, record_id, requested_version FROM agent_update_status_log ORDER BY 1"
    )
    migrate(database.url)
    migrate(database.url)
    assert (
        database.query("SELECT update_log_id, record_id, requested_version FROM agent_update_status_log ORDER BY 1")
        == before
    )
    assert database.query("SELECT count(*) FROM agent_update_record_ids") == [(3,)]
    assert database.query("SELECT kind, subject, actor FROM event_log") == [("publish", "service-1.0.0", "ana")]
    assert database.query("SELECT last_seen_day::text FROM devices") == [("2026-11-20",)]
    assert prepared(database)
    assert {"y2026m09": 1, "y2026m10": 1}.items() <= rows_by_table(database).items()
    # What is sent again after the upgrade is known, and new rows get new numbers.
    again = record(record_id=before[0][1])
    store(database, [Records("00000000-0000-4000-8000-000000000001", NOW, (again, record()))])
    assert database.query("SELECT count(*), count(DISTINCT update_log_id) FROM agent_update_status_log") == [(5, 5)]


def test_all_steps_can_be_run_again_on_what_is_left_of_the_tables(database: TestDatabase) -> None:
    """Somebody dropped some of them; the others keep their rows."""
    migrate(database.url)
    store(database, received("2026-11-21"))
    database.query(
        "DROP TABLE event_log, unregistered_devices, agent_update_record_ids, agent_update_status_log_default"
    )
    migrate(database.url, from_start=True)
    assert database.query("SELECT count(*) FROM agent_update_record_ids") == [(0,)]
    store(database, received("2026-11-21"))


def test_this_month_and_the_next_two_have_partitions_before_they_begin(database: TestDatabase) -> None:
    assert prepared(database) == [f"agent_update_status_log_y{month}" for month in ("2026m11", "2026m12", "2027m01")]
    assert prepared(database) == []
    store(database, received("2026-11-30T23:59:59", "2026-12-01", "2027-01-31"))
    assert rows_by_table(database) == {"y2026m11": 1, "y2026m12": 1, "y2027m01": 1}


def test_rows_of_other_months_are_taken_and_move_when_their_month_has_a_partition(database: TestDatabase) -> None:
    """A clock that jumped to 2031, one that began in 1970, and a spool that waited for two months."""
    prepared(database)
    store(database, received("2031-05-05", "1970-01-01", "2026-09-10", "2026-09-11"))
    assert rows_by_table(database) == {"default": 4}
    assert prepared(database) == ["agent_update_status_log_y2026m09"]
    assert rows_by_table(database) == {"default": 2, "y2026m09": 2}
    assert prepared(database, datetime(2031, 5, 6, tzinfo=UTC))
    assert rows_by_table(database) == {"default": 1, "y2026m09": 2, "y2031m05": 1}


def test_a_repeated_record_is_stored_once_also_in_another_month(database: TestDatabase) -> None:
    prepared(database)
    device_id, same = str(uuid.uuid4()), record()
    for at in (NOW, NOW, NOW + timedelta(days=30)):
        store(database, [Records(device_id, at, (same, same))])
    assert database.query("SELECT count(*) FROM agent_update_status_log") == [(1,)]
    # Another device may have chosen the same number.
    store(database, [Records(str(uuid.uuid4()), NOW, (same,))])
    assert database.query("SELECT count(*) FROM agent_update_status_log") == [(2,)]


def test_months_beyond_the_retention_are_dropped_with_their_keys(database: TestDatabase) -> None:
    entries = received("2026-07-31", "2026-08-31", "2026-09-01", "2026-11-02")
    store(database, entries)
    prepared(database)
    assert looks(database, LOOKS, NOW) == []
    assert looks(database, 1, NOW + LOOKS * HOUR) == [
        name_of(LOG, shifted(NOW.date(), -4)),
        name_of(LOG, shifted(NOW.date(), -3)),
    ]
    assert rows_by_table(database) == {"y2026m09": 1, "y2026m11": 1}
    assert database.query("SELECT count(*) FROM agent_update_record_ids") == [(2,)]


def test_old_rows_of_the_default_partition_go_as_well(database: TestDatabase) -> None:
    prepared(database)
    store(database, received("1970-01-01", "2026-11-01", "2031-01-01"))
    assert looks(database, LOOKS + 1, NOW) == ["agent_update_status_log_default"]
    assert rows_by_table(database) == {"y2026m11": 1, "default": 1}


def test_rows_from_a_clock_far_ahead_get_the_present_time_after_a_day_and_leave_like_all_others(
    database: TestDatabase,
) -> None:
    prepared(database)
    store(database, received("2099-01-01", "2031-05-05", "2027-01-31", "2026-11-20", "1970-01-01"))
    assert looks(database, LOOKS, NOW, look=redate) == []
    assert looks(database, 1, NOW + LOOKS * HOUR, look=redate) == ["2 rows of agent_update_status_log"]
    assert rows_by_table(database) == {"y2026m11": 3, "y2027m01": 1, "default": 1}
    assert looks(database, 1, NOW + LOOKS * HOUR, look=redate) == []
    later = NOW.replace(year=2028)
    assert looks(database, LOOKS + 1, later)
    assert rows_by_table(database) == {}
    assert database.query("SELECT count(*) FROM agent_update_record_ids") == [(0,)]


def test_a_clock_that_is_put_back_for_less_than_a_day_dates_nothing_anew(database: TestDatabase) -> None:
    """Nor does one that stays there touch months that were the present once."""
    prepared(database)
    store(database, received("2026-11-20", "2031-05-05"))
    earlier = NOW.replace(year=2020)
    assert looks(database, LOOKS, earlier, look=redate) == []
    assert looks(database, 1, NOW.replace(year=2031, month=5), look=redate) == []
    assert looks(database, LOOKS + 1, earlier, look=redate) == ["1 rows of agent_update_status_log"]
    assert rows_by_table(database) == {"y2026m11": 1, "default": 1}


def test_a_clock_that_jumps_for_less_than_a_day_drops_nothing(database: TestDatabase) -> None:
    store(database, received("2026-10-05", "2026-11-05"))
    prepared(database)
    later = NOW.replace(year=2036)
    for _ in range(3):
        assert looks(database, LOOKS, later) == []
        assert looks(database, 1, NOW) == []
    assert rows_by_table(database) == {"y2026m10": 1, "y2026m11": 1}


def test_several_servers_that_look_do_not_make_it_quicker(database: TestDatabase) -> None:
    store(database, received("2026-05-05"))
    prepared(database)
    assert looks(database, 4 * LOOKS, NOW, apart=HOUR / 4) == []


def test_upkeep_does_it_all_and_survives_a_database_that_is_away(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(opened: Database) -> tuple[bool, bool]:
        upkeep = Upkeep(opened, lambda: NOW, 13)
        first = await upkeep.look()
        await opened.close()
        return first, await upkeep.look()

    assert database.run(work) == (True, False)
    assert database.query("SELECT count(*) FROM pg_class WHERE relname LIKE 'event_log_y%%' AND relkind = 'r'") == [
        (3,)
    ]
    assert "has to wait" in caplog.text


def test_months_are_counted_across_years_and_within_the_calendar() -> None:
    assert [str(shifted(NOW.date().replace(day=1), by)) for by in (-11, -10, 1, 2)] == [
        "2025-12-01", "2026-01-01", "2026-12-01", "2027-01-01",
    ]  # fmt: skip
    assert str(shifted(NOW.date(), -99_999)) == "0001-01-01"
    assert month_named("event_log_y2026m13") is None
    assert month_named("event_log_default") is None
