"""What a PostgreSQL that distributes tables by ``device_id`` (Citus) asks of them, and a managed one of its users.

Citus itself is not at hand; its rules are those of its documentation, and are looked up in the catalogue of a real
PostgreSQL with our tables in it (design §7).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.databases import Cluster, TestDatabase
from support.programs import run
from support.server import running, wait_until
from support.trees import Tree

import repo_server.store
from repo_server.store import DatabaseAway
from repo_server.store.database import Database
from repo_server.store.owner import keep
from repo_server.store.tables import DISTRIBUTED, LOCAL
from repo_server.store.upkeep import Upkeep

LOG = "agent_update_status_log"


@pytest.fixture(scope="module")
def migrated(postgres: Cluster) -> TestDatabase:
    database = postgres.new()
    kept(database)
    return database


def kept(database: TestDatabase) -> list[str]:
    """Do what ``repo-server migrate`` does."""
    return keep(database.url, None, datetime.now(UTC), 13)


def test_every_table_is_known_to_be_distributed_or_not(migrated: TestDatabase) -> None:
    tables = migrated.query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition"
    )
    assert {name for (name,) in tables} == {*DISTRIBUTED, *LOCAL}


def test_device_id_is_in_every_unique_index_of_what_is_distributed(migrated: TestDatabase) -> None:
    """Uniqueness can be kept within one shard only."""
    indexes = migrated.query(
        """
        SELECT c.relname, i.indexrelid::regclass::text,
            EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
                AND a.attname = 'device_id'), i.indpred IS NOT NULL OR i.indexprs IS NOT NULL
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
        WHERE i.indisunique AND (c.relname = ANY(%s) OR c.oid IN (SELECT inhrelid FROM pg_inherits
            WHERE inhparent = %s::regclass))
        """,
        list(DISTRIBUTED),
        LOG,
    )
    assert {name for name, *_ in indexes} >= set(DISTRIBUTED)
    assert [index for _, index, has_key, partial in indexes if not has_key or partial] == []


def test_nothing_refers_to_other_tables_and_nothing_happens_behind_a_statement(migrated: TestDatabase) -> None:
    """No foreign keys, triggers, rules, row security, exclusion constraints, inheritance but partitions, extensions."""
    assert (
        migrated.query("SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype IN ('f', 'x')") == []
    )
    assert migrated.query("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == []
    assert migrated.query("SELECT tablename, rulename FROM pg_rules WHERE schemaname = 'public'") == []
    assert migrated.query("SELECT relname FROM pg_class WHERE relrowsecurity") == []
    assert migrated.query("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'") == []
    assert migrated.query("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace") == []


def test_the_column_to_distribute_by_has_one_type_and_is_never_null(migrated: TestDatabase) -> None:
    """Tables of one type and one number of shards are kept together, so that a device's rows are on one machine."""
    columns = migrated.query(
        "SELECT attrelid::regclass::text, atttypid::regtype::text, attnotnull FROM pg_attribute"
        " WHERE attname = 'device_id' AND attrelid::regclass::text = ANY(%s)",
        list(DISTRIBUTED),
    )
    assert sorted(columns) == [(name, "uuid", True) for name in sorted(DISTRIBUTED)]


def test_logs_are_partitioned_by_time_only_and_numbers_order_nothing(migrated: TestDatabase) -> None:
    """Each machine hands out numbers of its own: they tell rows apart, and that is all."""
    assert migrated.query("SELECT partrelid::regclass::text, partstrat::text, partnatts FROM pg_partitioned_table") == [
        (LOG, "r", 1),
        ("event_log", "r", 1),
    ]
    assert migrated.query("SELECT relname FROM pg_class WHERE relkind = 'S'") == [("agent_update_log_ids",)]
    defaults = migrated.query(
        "SELECT DISTINCT a.attname, pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef AS d JOIN pg_attribute AS a"
        " ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval%%'"
    )
    assert defaults == [("update_log_id", "nextval('agent_update_log_ids'::regclass)")]
    used = [path.name for path in sources() if re.search(r"\bupdate_log_id\b", path.read_text())]
    assert used == ["v0001_devices_and_logs.py", "v0002_partitioned_logs.py"]


def sources() -> list[Path]:
    return sorted(Path(repo_server.store.__file__).parent.rglob("*.py"))


def statements() -> Iterator[tuple[str, str]]:
    """Return every piece of SQL of the store that writes or asks: file and text."""
    for path in sources():
        if "versions" not in path.parts:
            for text in re.findall(r'"""(.*?)"""', path.read_text(), re.DOTALL):
                if re.search(r"^\s*(SELECT|INSERT|UPDATE|DELETE|WITH) ", text):
                    yield path.name, text


def test_a_statement_writes_one_table_and_what_it_conflicts_with_is_in_the_key() -> None:
    """But for the change of an id, which a distributed database refuses and which goes on without (README)."""
    seen = 0
    for name, text in statements():
        if name == "identity.py" or "event_states" in text:
            continue
        seen += 1
        assert len(re.findall(r"INSERT INTO|DELETE FROM|^UPDATE|\sUPDATE (?!SET)", text)) <= 1, text
        assert not re.search(r"GROUPING SETS|ROLLUP|CUBE|FOR UPDATE|RECURSIVE|TABLESAMPLE", text), text
        for target in re.findall(r"ON CONFLICT \((.*?)\)", text):
            assert "device_id" in target or "partition_name" in target, text
    assert seen >= 8


def test_a_server_whose_role_may_only_write_rows_works_and_says_what_its_owner_has_to_do(
    postgres: Cluster, tree: Tree, tmp_path: Path
) -> None:
    """A managed database: no superuser, no extension, tables of another role; only the owner changes tables."""
    database = postgres.new()
    suffix = uuid.uuid4().hex[:8]
    owner, writer = f"owner_{suffix}", f"writer_{suffix}"
    name = database.url.rpartition("=")[2]
    database.query(f"CREATE ROLE {owner} LOGIN; CREATE ROLE {writer} LOGIN; ALTER DATABASE {name} OWNER TO {owner}")
    as_owner, as_writer = (
        TestDatabase(database.url.replace("user=postgres", f"user={who}")) for who in (owner, writer)
    )
    with pytest.raises(DatabaseAway, match="repo-server migrate"):
        kept(as_writer)
    made = run("repo-server", "migrate", "--database-url", as_owner.url, "--grant", writer)
    assert "made agent_update_status_log_y" in made
    assert f"{writer} may read and write rows" in made
    assert kept(as_owner) == []
    with running(tree.root, tmp_path / "state", "--database-url", as_writer.url, database=True) as server:
        device_id = str(uuid.uuid4())
        server.check(device_id=device_id)
        record = {
            "record_id": str(uuid.uuid4()), "component_name": "ui", "trigger_source": "x", "requested_version": "1.0.0",
            "status": "success", "attempt_timestamp": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        assert server.post("/v1/status", {"device_id": device_id, "records": [record]}).json()["accepted"]
        wait_until(lambda: server.get(f"/v1/devices/{device_id}").status == 200, "the device is there", server.log_path)
        wait_until(lambda: as_owner.query("SELECT 1 FROM event_log"), "events are recorded", server.log_path)
        assert server.ready()["conditions"] == []
        assert "permission denied" not in server.log
    month = as_owner.query("SELECT tableoid::regclass::text FROM agent_update_status_log")[0][0]
    as_owner.query(f"DROP TABLE {month}")

    async def look(opened: Database) -> tuple[bool, str | None, bool]:
        upkeep = Upkeep(opened, opened.clock, 13)
        return await upkeep.look(), upkeep.trouble, opened.ready

    well, trouble, ready = as_writer.run(look)
    assert well
    assert ready
    assert trouble is not None
    assert "repo-server migrate --database-url" in trouble
    assert kept(as_owner) == [f"made {month}"]
    assert as_writer.run(look) == (True, None, True)
