"""The event log: each change of a release, of rules or credentials once, with who and from where (NFR-AUD-001)."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.databases import TestDatabase, cluster
from support.server import RunningServer, running, wait_until
from support.serving import SERVICE
from support.trees import Tree

from repo_server.access.auth import Role
from repo_server.access.tokens import add_token
from repo_server.telemetry.happenings import happenings

NAME = "service-linux-amd64-1.2.3"


def told(database: TestDatabase) -> list[tuple[str, str]]:
    """Return kind and subject of all events in the order in which they were told."""
    try:
        rows = database.query("SELECT kind, subject FROM event_log ORDER BY occurred_at, kind")
    except (psycopg.errors.UndefinedTable, psycopg.OperationalError):
        return []
    return [(str(kind), str(subject)) for kind, subject in rows]


def telling(server: RunningServer, database: TestDatabase, *expected: tuple[str, str]) -> list[tuple[str, str]]:
    """Wait until these are the events since the first look, and return all."""

    def there() -> list[tuple[str, str]] | None:
        found = told(database)
        return found if [item for item in found if item[0] != "first_look"] == list(expected) else None

    try:
        found: list[tuple[str, str]] = wait_until(there, f"events are {expected}", server.log_path, 30)
    except AssertionError:
        raise AssertionError(f"expected {expected}, found {told(database)}") from None
    return found


def sidecar(tree: Tree, suffix: str, text: str | None, name: str = SERVICE) -> None:
    """Write or remove a sidecar as an operator's tools do."""
    path = tree.root / f"{name}{suffix}"
    if text is None:
        path.unlink()
        return
    temporary = tree.root / ".new"
    temporary.write_text(text)
    temporary.replace(path)


def test_what_an_operator_does_is_told_once_and_with_who(database: TestDatabase, tree: Tree, tmp_path: Path) -> None:
    """Publishing, promotion, a ramp, its halt, recall; also across restarts, and what happened in between."""
    state, options = tmp_path / "state", ("--database-url", database.url)
    expected: list[tuple[str, str]] = []

    def also(server: RunningServer, *more: tuple[str, str]) -> None:
        expected.extend(more)
        telling(server, database, *expected)

    with running(tree.root, state, *options) as server:
        wait_until(lambda: told(database) == [("first_look", "the tree")], "the first look is told", server.log_path)
        tree.add("ui-linux-amd64-2.0.0.tar.gz", b"ui", channel="beta")
        also(server, ("publish", "ui-linux-amd64-2.0.0"))
        sidecar(tree, ".channel", "stable\n", "ui-linux-amd64-2.0.0.tar.gz")
        also(server, ("promote", "ui-linux-amd64-2.0.0"))
        (tree.root / "holiday.jpg").write_bytes(b"")
        also(server, ("problem_appeared", "holiday.jpg"))
    with running(tree.root, state, *options) as server:
        sidecar(tree, ".rollout", '{"start": "2026-01-01T00:00:00Z", "from": 0.1, "to": 1.0, "paused": true}')
        also(server, ("pause", NAME), ("rollout", NAME))
        sidecar(tree, ".blocked", '{"reason": "loses settings", "by": "ana"}')
        also(server, ("recall", NAME))
    # Nobody looks: it is told when somebody looks again.
    (tree.root / "holiday.jpg").unlink()
    sidecar(tree, ".blocked", None)
    with running(tree.root, state, *options) as server:
        also(server, ("problem_cleared", "holiday.jpg"), ("unblock", NAME))
        assert "Traceback" not in server.log
    rows = {
        kind: (actor, source, details)
        for kind, actor, source, details in database.query("SELECT kind, actor, source, details FROM event_log")
    }
    assert rows["recall"][0] == "ana"
    assert rows["recall"][2]["reason"] == "loses settings"
    assert rows["promote"][1] == "tree"
    assert (rows["promote"][2]["from"], rows["promote"][2]["to"]) == ("beta", "stable")
    assert rows["promote"][2]["owner_uid"] == os.geteuid()
    assert rows["promote"][2]["file"] == "ui-linux-amd64-2.0.0.tar.gz.channel"
    assert rows["problem_appeared"][2]["code"] == "unrecognised_name"


def test_two_servers_on_one_database_tell_a_change_once(database: TestDatabase, tree: Tree, tmp_path: Path) -> None:
    options = ("--database-url", database.url)
    with running(tree.root, tmp_path / "one", *options) as one, running(tree.root, tmp_path / "two", *options) as two:
        wait_until(lambda: told(database) == [("first_look", "the tree")] * 2, "both have looked", one.log_path)
        for channel in ("beta", "stable", "beta"):
            before = len(told(database))
            sidecar(tree, ".channel", f"{channel}\n")
            wait_until(lambda seen=before: len(told(database)) > seen, "it is told", two.log_path)
            for server in (one, two):
                seen = f"to {channel}"
                wait_until(lambda at=server, word=seen: word in at.log, "both have seen it", server.log_path)
    assert [kind for kind, _ in told(database)][2:] == ["demote", "promote", "demote"]


def test_of_several_workers_one_process_tells(database: TestDatabase, tree: Tree, tmp_path: Path) -> None:
    options = ("--database-url", database.url, "--workers", "2")
    with running(tree.root, tmp_path / "state", *options) as server:
        wait_until(lambda: told(database), "the first look is told", server.log_path)
        sidecar(tree, ".channel", "beta\n")
        telling(server, database, ("demote", NAME))
        add_token(tmp_path / "state", "ana", Role.READ, datetime.now(UTC))
        telling(server, database, ("demote", NAME), ("token_added", "ana"))


def test_secrets_and_tokens_are_told_without_what_they_are(database: TestDatabase, tree: Tree, tmp_path: Path) -> None:
    state, secrets = tmp_path / "state", tmp_path / "secrets"
    state.mkdir(mode=0o700)
    secrets.write_text("fleet:0123456789abcdef0123456789abcdef\n")
    secrets.chmod(0o600)
    with running(tree.root, state, "--database-url", database.url, "--secrets", str(secrets)) as server:
        wait_until(lambda: told(database), "the first look is told", server.log_path)
        secrets.write_text("fleet:0123456789abcdef0123456789abcdef\nnext:fedcba9876543210fedcba9876543210\n")
        telling(server, database, ("secret_added", "next"))
        secrets.write_text("next:00000000000000000000000000000000\n")
        telling(server, database, ("secret_added", "next"), ("secret_changed", "next"), ("secret_removed", "fleet"))
    everything = str(database.query("SELECT * FROM event_log")) + str(database.query("SELECT * FROM event_states"))
    for secret in ("0123456789abcdef", "fedcba98", "00000000000"):
        assert secret not in everything


def test_what_happens_while_the_database_is_away_is_told_in_order_when_it_is_back(tree: Tree, tmp_path: Path) -> None:
    """Through the spool, which a kill of the server does not empty."""
    with cluster() as postgres:
        database = postgres.new()
        state, options = tmp_path / "state", ("--database-url", database.url)
        with running(tree.root, state, *options) as server:
            wait_until(lambda: told(database), "the first look is told", server.log_path)
            postgres.source.stop()
            for channel in ("alpha", "beta", "stable"):
                sidecar(tree, ".channel", f"{channel}\n")
                said = f'"to":"{channel}"'
                wait_until(lambda word=said: word in text_of(state / "events"), "it is kept", server.log_path)
            server.process.kill()
            server.process.wait()
        postgres.source.ensure_running()
        with running(tree.root, state, *options) as server:
            telling(server, database, ("demote", NAME), ("promote", NAME), ("promote", NAME))


def text_of(folder: Path) -> str:
    return "".join(path.read_bytes().decode(errors="replace") for path in folder.glob("*.spool"))


def test_an_event_that_the_database_refuses_is_said(database: TestDatabase, tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", "--database-url", database.url) as server:
        wait_until(lambda: told(database), "the first look is told", server.log_path, 30)
        database.query("ALTER TABLE event_log ADD CHECK (kind <> 'recall') NOT VALID")
        sidecar(tree, ".blocked", '{"reason": "broken"}')

        def lost() -> bool:
            return "events_lost" in {item["code"] for item in server.get("/readyz").json()["conditions"]}

        wait_until(lost, "it is said", server.log_path, 30)


def test_events_are_listed_newest_first_in_pages(database: TestDatabase, tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", "--database-url", database.url) as server:
        wait_until(lambda: told(database), "the first look is told", server.log_path)
        for n in range(5):
            tree.add(f"ui-linux-amd64-2.0.{n}.tar.gz", b"%d" % n)
            wait_until(lambda count=n: len(told(database)) == count + 2, "it is told", server.log_path)
        found, after = [], ""
        while True:
            page = server.get(f"/v1/events?limit=2&kind=publish{after}").json()
            found += [item["subject"] for item in page["events"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert found == [f"ui-linux-amd64-2.0.{n}" for n in reversed(range(5))]
        for wrong in (
            "after=x",
            "since=now",
            "limit=0",
            "after=00000000-0000-4000-8000-000000000001@9999-12-31T23:59:59-23:00",
        ):
            assert server.get(f"/v1/events?{wrong}").status == 422, wrong


RELEASE: dict[str, Any] = {"path": "a", "channel": "beta", "sha256": "0"}


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (None, RELEASE, ["publish"]),
        (None, RELEASE | {"blocked": {"reason": "bad", "by": None}}, ["publish", "recall"]),
        (RELEASE, RELEASE | {"channel": "stable"}, ["promote"]),
        (RELEASE, RELEASE | {"channel": "alpha"}, ["demote"]),
        (RELEASE, RELEASE | {"path": "b/a"}, ["move"]),
        (RELEASE, None, ["remove"]),
        (RELEASE | {"rollout": {}}, RELEASE | {"rollout": {}, "paused": True}, ["pause"]),
        (RELEASE | {"rollout": {}}, RELEASE | {"rollout": {}, "paused": True, "halted": True}, ["halt"]),
        (RELEASE | {"rollout": {}, "paused": True}, RELEASE | {"rollout": {}, "paused": False}, ["resume"]),
        (RELEASE | {"rollout": {"to": 1}}, RELEASE, ["rollout"]),
        (RELEASE, RELEASE | {"channel": "stable", "rollout": {"to": 1}}, ["promote", "rollout"]),
        (RELEASE, RELEASE, []),
    ],
)
def test_a_change_of_a_release_has_a_name(
    before: dict[str, Any] | None, after: dict[str, Any] | None, kinds: list[str]
) -> None:
    assert [item.kind for item in happenings(f"release {NAME}", before, after)] == kinds
