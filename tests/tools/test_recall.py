"""``repotool block``, ``unblock``, ``rollback``: recalled, and where devices go (L15, L51, FR-RBK-001)."""

from __future__ import annotations

import json
import os

import pytest
from support.operators import Operator, snapshot
from support.trees import Tree

from repo_server.core.sidecars import parse_blocked

OLD, NEW = "service-linux-amd64-1.2.2.tar.gz", "service-linux-amd64-1.2.3.tar.gz"


@pytest.fixture
def tree(operator: Operator) -> Tree:
    tree = Tree(operator.home / "tree")
    tree.add(OLD)
    tree.add(NEW)
    tree.add("ui-linux-amd64-1.2.3.tar.gz", channel="beta")
    operator.env["REPOTOOL_TREE"] = str(tree.root)
    return tree


def test_a_blocked_release_is_offered_no_more_and_unblock_gives_it_back(operator: Operator, tree: Tree) -> None:
    """L15."""
    operator.run("block", "1.2.3", "--reason", "loses settings", "--by", "ana")
    block = parse_blocked((tree.root / f"{NEW}.blocked").read_bytes())
    assert (block.reason, block.by) == ("loses settings", "ana")
    assert block.at is not None
    states = {item["path"]: item["state"] for item in operator.facts("ls")["releases"]}
    assert states == {OLD: "offered", NEW: "blocked", "ui-linux-amd64-1.2.3.tar.gz": "blocked"}
    operator.run("unblock", "1.2.3")
    assert {item["state"] for item in operator.facts("ls")["releases"]} == {"offered"}
    assert list(tree.root.glob("*.blocked")) == []


def test_again_changes_nothing_and_another_reason_keeps_unknown_fields(operator: Operator, tree: Tree) -> None:
    """L16, L17."""
    operator.run("block", "1.2.3", "--reason", "one", "--component", "service")
    path = tree.root / f"{NEW}.blocked"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"ticket": "OPS-1"}))
    before = snapshot(tree.root)
    facts = operator.facts("block", "1.2.3", "--reason", "one", "--component", "service")
    assert [item["action"] for item in facts["files"]] == ["nothing"]
    assert snapshot(tree.root) == before
    operator.run("block", "1.2.3", "--reason", "two", "--component", "service")
    assert json.loads(path.read_bytes())["reason"] == "two"
    assert json.loads(path.read_bytes())["ticket"] == "OPS-1"
    assert operator.facts("unblock", "1.2.2")["files"][0]["action"] == "nothing"


def test_an_empty_blocked_file_is_replaced_and_can_be_taken_away(operator: Operator, tree: Tree) -> None:
    """L15: it keeps the release from being offered, but says nothing."""
    (tree.root / f"{NEW}.blocked").write_bytes(b"")
    operator.run("block", "1.2.3", "--reason", "bad", "--component", "service")
    assert parse_blocked((tree.root / f"{NEW}.blocked").read_bytes()).reason == "bad"
    (tree.root / f"{NEW}.blocked").write_bytes(b"")
    operator.run("unblock", "1.2.3")
    assert not (tree.root / f"{NEW}.blocked").exists()


@pytest.mark.parametrize("verb", ["block", "unblock", "rollback"])
def test_dry_run_changes_nothing(operator: Operator, tree: Tree, verb: str) -> None:
    operator.run("ls")
    (tree.root / f"{OLD}.blocked").write_text('{"reason": "x"}')
    before = snapshot(tree.root)
    version = "1.2.2" if verb == "unblock" else "1.2.3"
    reason = ("--reason", "r") if verb == "block" else ()
    assert operator.facts(verb, version, *reason, "--dry-run")["dry_run"] is True
    assert snapshot(tree.root) == before


def test_rollback_says_where_devices_go(operator: Operator, tree: Tree) -> None:
    """L51: the next release below that their channel sees, or nowhere."""
    for arguments in (("--dry-run",), ()):
        facts = operator.facts("rollback", "1.2.3", *arguments)
        going = {(item["component"], item["channel"]): item["goes_to"] for item in facts["destinations"]}
        assert going == {
            (component, channel): "1.2.2" if component == "service" else None
            for component in ("service", "ui")
            for channel in ("stable", "beta", "alpha")
        }
    assert (tree.root / f"{NEW}.blocked").exists()
    assert "go to" in operator.run("rollback", "1.2.3")


def test_a_version_that_does_not_exist_and_an_empty_reason_are_refused(operator: Operator, tree: Tree) -> None:
    assert "the nearest are" in operator.refused(1, "block", "9.0.0", "--reason", "x")
    operator.refused(2, "block", "1.2.3", "--reason", " ")
    operator.refused(2, "block", "1.2.3")


def test_a_reason_that_is_no_text_is_said_and_recalls_nothing(operator: Operator, tree: Tree) -> None:
    before = snapshot(tree.root)
    assert "not text in UTF-8" in operator.refused(2, "block", "1.2.3", "--reason", os.fsdecode(b"loses \xff"))
    assert snapshot(tree.root) == before
