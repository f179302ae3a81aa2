"""``repotool ls``, ``doctor``, ``explain``: no silence (L8, L52, promise 3), and JSON that scripts can rely on."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.operators import Operator, Shop, snapshot
from support.trees import Tree

from repo_server.core.statement import parse_statement
from repo_server.tree.removal import MARKER

README = Path(__file__).parents[2] / "tools" / "repotool" / "README.md"
NAME = "service-linux-amd64-1.2.3.tar.gz"
DEVICE = "0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d"


@pytest.fixture
def tree(operator: Operator) -> Tree:
    tree = Tree(operator.home / "tree")
    operator.env["REPOTOOL_TREE"] = str(tree.root)
    return tree


def failing(operator: Operator, *arguments: str | Path) -> dict[str, Any]:
    done = operator.attempt(*arguments, "--json")
    assert done.returncode == 1, done.stderr.decode()
    return dict(json.loads(done.stdout))


def test_a_clean_tree_has_nothing_to_say(operator: Operator, tree: Tree) -> None:
    tree.add(NAME)
    assert operator.facts("doctor") == {"releases": 1, "problems": []}
    assert "No problems" in operator.run("doctor")


def test_everything_that_is_not_offered_has_a_reason_with_a_name(operator: Operator, tree: Tree) -> None:
    """L8: one bad file never hides a good one."""
    tree.add(NAME)
    tree.add("ui-linux-amd64-1.0.0.zip", channel="beta").with_name("ui-linux-amd64-1.0.0.zip.channel").write_text("bta")
    (tree.root / "probe-linux-amd64-1.0.0.zip").write_bytes(b"arriving")
    (tree.root / "notes.txt").write_text("hello")
    facts = failing(operator, "doctor")
    found = {item["path"].split("/")[-1].removesuffix(".channel"): item for item in facts["problems"]}
    assert found["ui-linux-amd64-1.0.0.zip"]["code"] == "unknown_channel"
    assert found["notes.txt"]["code"] == "unrecognised_name"
    assert found["probe-linux-amd64-1.0.0.zip"]["state"] == "pending"
    assert facts["releases"] == 1
    assert all(item["do"] and item["message"] and item["since"] for item in facts["problems"])
    done = operator.attempt("doctor")
    assert done.returncode == 1
    assert b"unknown_channel" in done.stdout
    assert b"1 file" not in done.stdout
    assert "not offered; see `repotool doctor`" in operator.run("ls")


def test_ls_shows_what_is_asked_for(operator: Operator, tree: Tree) -> None:
    tree.add(NAME)
    tree.add("service-linux-amd64-1.10.0.tar.gz", channel="beta")
    tree.add("service-windows-amd64-1.2.3.zip", blocked='{"reason": "bad"}')
    tree.add("ui-linux-arm64-1.0.0.zip", folder="2026/q4")
    (tree.root / "odd.txt").write_text("")

    def listed(*arguments: str) -> list[tuple[str, str]]:
        return [(item["component"], item["version"]) for item in operator.facts("ls", *arguments)["releases"]]

    assert listed() == [("service", "1.10.0"), ("service", "1.2.3"), ("service", "1.2.3"), ("ui", "1.0.0")]
    assert listed("--component", "ui") == [("ui", "1.0.0")]
    assert listed("--os", "windows") == [("service", "1.2.3")]
    assert listed("--arch", "arm64") == [("ui", "1.0.0")]
    assert listed("--channel", "beta") == [("service", "1.10.0")]
    assert "this tree knows service" in operator.refused(2, "ls", "--component", "servcie")
    assert [item["code"] for item in operator.facts("ls", "--all")["problems"]] == ["unrecognised_name"]
    lines = operator.run("ls").splitlines()
    assert lines[0].split() == ["component", "version", "platform", "channel", "state", "reaches", "size", "file"]
    assert {line.index("linux-amd64") for line in lines if "linux-amd64-" in line} == {lines[0].index("platform")}


def test_explain_says_what_the_server_would(operator: Operator, tree: Tree) -> None:
    """L50, L52."""
    tree.add(NAME)
    tree.add("service-linux-amd64-2.0.0.tar.gz", meta='{"requires": [{"name": "probe", "min_version": "1.0.0"}]}')
    tree.add("ui-linux-amd64-1.0.0.zip", channel="beta")
    base = ("explain", "--os", "linux", "--arch", "amd64")
    facts = operator.facts(*base, "--component", "service=1.0.0", "--component", "ui=0.9.0")
    assert facts["offers"] == [{"component": "service", "version": "1.2.3", "action": "update", "path": NAME}]
    codes = {item["component"]: item["code"] for item in facts["reasons"]}
    assert codes == {"service": "offered", "ui": "channel_has_none"}
    assert "requires probe >= 1.0.0" in next(
        item["detail"] for item in facts["reasons"] if item["component"] == "service"
    )
    facts = operator.facts(*base, "--channel", "beta", "--component", "service=3.0.0", "--component", "ui")
    assert {item["component"]: item["code"] for item in facts["reasons"]} == {"service": "up_to_date", "ui": "offered"}
    (tree.root / "policy").mkdir()
    (tree.root / "policy" / "channels.toml").write_text('[sites]\n"berlin" = "beta"\n')
    facts = operator.facts(*base, "--site", "Berlin", "--device-id", f"WIN-{DEVICE.upper()}")
    assert (facts["channel"], facts["channel_source"]) == ("beta", "site")
    assert {item["component"] for item in facts["offers"]} == {"service", "ui"}
    assert "UUID" in operator.refused(2, *base, "--device-id", "x")
    assert "SemVer" in operator.refused(2, *base, "--component", "ui=1")
    assert "twice" in operator.refused(2, *base, "--component", "ui=1.0.0", "--component", "ui")
    assert "in lower case" in operator.refused(2, *base, "--component", "=1.0.0")
    assert "empty" in operator.refused(2, *base, "--site", "")


@pytest.mark.parametrize("kind", ["malformed", "link", "fifo"])
def test_doctor_shows_broken_settings_beside_everything_else(operator: Operator, tree: Tree, kind: str) -> None:
    """L30: one bad file never hides another."""
    path = tree.root / "repo.toml"
    path.unlink(missing_ok=True)
    if kind == "malformed":
        path.write_text("x =")
    elif kind == "link":
        path.symlink_to("elsewhere")
    else:
        os.mkfifo(path)
    (tree.root / "notes.txt").write_text("hello")
    found = {item["path"]: item["code"] for item in failing(operator, "doctor")["problems"]}
    assert found == {"repo.toml": "invalid_policy", "notes.txt": "unrecognised_name"}


def test_looking_writes_nothing_into_the_tree(operator: Operator, tree: Tree) -> None:
    """Neither the ledger (L7) nor anything else: whoever looks may be root, or may not be the one who publishes."""
    tree.add(NAME)
    (tree.root / MARKER).touch()
    before = snapshot(tree.root), tree.root.stat().st_mtime_ns
    for verb in ("ls", "doctor"):
        operator.run(verb)
    operator.run("explain", "--os", "linux", "--arch", "amd64")
    assert (snapshot(tree.root), tree.root.stat().st_mtime_ns) == before


def test_the_removal_is_confirmed_for_the_server_and_not_for_repotool_itself(operator: Operator, tree: Tree) -> None:
    """L26: repotool's own looks at the tree do not use the confirmation up."""
    tree.add(NAME)
    operator.run("doctor", "--accept-removal", "--dry-run")
    assert not (tree.root / MARKER).exists()
    operator.run("doctor", "--accept-removal")
    assert (tree.root / MARKER).exists()
    operator.run("doctor")
    operator.run("ls")
    assert (tree.root / MARKER).exists()


def test_a_servers_state_is_read_and_not_written(operator: Operator, tree: Tree) -> None:
    """L25."""
    tree.add(NAME)
    state = operator.home / "state"
    state.mkdir()
    (state / "scan-cache").write_bytes(b"garbage")
    before = snapshot(state)
    operator.run("ls", "--state", state)
    assert snapshot(state) == before


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """Return verb → keys, keys of each item, as README.md says."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|$", README.read_text(), re.MULTILINE)
    told = [(verb, top.replace("(with `--all`: problems)", ""), items) for verb, top, items in rows]
    return {verb: (set(re.findall(r"\w+", top)), set(re.findall(r"\w+", items))) for verb, top, items in told}


def public_half(shop: Shop) -> Path:
    """Return the release key's public half, as openssl writes it."""
    public = shop.home / "release.pub"
    subprocess.run(["openssl", "pkey", "-in", shop.key, "-pubout", "-out", public], check=True)
    return public


def test_json_has_the_keys_that_are_documented(shop: Shop) -> None:
    archive = shop.package()
    sources = shop.home / "sources" / "service-1.2.3"
    said = {
        "init": shop.facts("init", shop.home / "t2", "--keys", shop.home / "k2", "--no-passphrase"),
        "pack": shop.facts("pack", sources, "-o", shop.home / "out"),
        "keyid": shop.facts("keyid", public_half(shop)),
        "statement": shop.facts("statement", archive),
        "sign": shop.facts("sign", archive, "--key", shop.key),
        "publish": shop.facts("publish", archive),
        "promote": shop.facts("promote", "1.2.3"),
        "ls": shop.facts("ls"),
        "explain": shop.facts("explain", "--os", "linux", "--arch", "amd64"),
        "block": shop.facts("block", "1.2.3", "--reason", "x"),
        "unblock": shop.facts("unblock", "1.2.3"),
        "rollback": shop.facts("rollback", "1.2.3"),
    }
    (shop.tree / "odd.txt").write_text("")
    said["doctor"] = failing(shop, "doctor")
    keys = documented()
    assert set(said) == set(keys)
    for verb, facts in said.items():
        assert set(facts) == keys[verb][0], verb
        items = next((facts[name] for name in ("files", "releases", "offers") if isinstance(facts.get(name), list)), [])
        items = facts["problems"] if verb == "doctor" else [] if verb == "init" else items
        for item in items:
            assert set(item) == keys[verb][1], verb
        assert items or not keys[verb][1], verb
    assert set(said["rollback"]["destinations"][0]) == {
        "component", "version", "os", "arch", "channel", "goes_to", "detail",
    }  # fmt: skip
    assert set(said["explain"]["reasons"][0]) == {"component", "code", "detail", "version", "changes_at"}
    assert parse_statement(said["statement"]["statement"].encode()).sha256 == said["pack"]["sha256"]
