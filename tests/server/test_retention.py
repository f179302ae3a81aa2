"""Devices that no longer ask leave the database, if the operator wants it (design §7)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from support.databases import TestDatabase

from repo_server.store.database import Database
from repo_server.store.looks import LOOKS
from repo_server.store.migrate import migrate
from repo_server.store.upkeep import Upkeep

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def add(database: TestDatabase, table: str, seen: str | None, created: str = "2020-01-01") -> str:
    device_id = str(uuid.uuid4())
    database.query(
        f"INSERT INTO {table} (device_id, last_seen_day, created_at) VALUES (%s, %s, %s)",  # noqa: S608 -- constants
        device_id, seen, created,
    )  # fmt: skip
    return device_id


def known(database: TestDatabase, table: str = "devices") -> set[str]:
    return {row[0] for row in database.query(f"SELECT device_id::text FROM {table}")}  # noqa: S608 -- constants


def looked(database: TestDatabase, times: int, days: int | None, now: datetime = NOW) -> None:
    """Keep house so often, once an hour."""

    async def work(opened: Database) -> None:
        moments = [now + n * HOUR for n in range(times)]
        upkeep = Upkeep(opened, lambda: moments[0], 13, days)
        while moments:
            assert await upkeep.look()
            moments.pop(0)

    database.run(work)


def test_devices_that_have_not_asked_for_so_long_are_forgotten_after_a_day_of_looks(database: TestDatabase) -> None:
    migrate(database.url)
    gone = {add(database, "devices", day) for day in ("2026-08-22", "2021-01-01", None)}
    there = {add(database, "devices", day, created) for day, created in (
        ("2026-08-24", "2020-01-01"), ("2026-11-21", "2020-01-01"), (None, "2026-11-01"),
    )}  # fmt: skip
    beside = add(database, "unregistered_devices", "2026-08-01")
    looked(database, LOOKS, 90)
    assert known(database) == gone | there
    looked(database, 2, 90, NOW + LOOKS * HOUR)
    assert known(database) == there
    assert beside not in known(database, "unregistered_devices")


def test_without_the_setting_and_in_a_table_of_somebody_else_all_stay(database: TestDatabase) -> None:
    migrate(database.url)
    gone = add(database, "devices", "2021-01-01")
    looked(database, LOOKS + 1, None)
    assert known(database) == {gone}
    database.query("ALTER TABLE devices ADD serial_number text; UPDATE devices SET serial_number = 'x'")
    database.query("ALTER TABLE devices ALTER serial_number SET NOT NULL")
    add(database, "unregistered_devices", "2021-01-01")
    looked(database, LOOKS + 1, 90)
    assert known(database) == {gone}
    assert known(database, "unregistered_devices") == set()
