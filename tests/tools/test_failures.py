"""What goes wrong is said in a sentence that says what to do, with the exit code of design §11."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from support.operators import QUIET, REPOTOOL, Operator, Shop, snapshot
from support.trees import Tree

NAME = "service-linux-amd64-1.2.3.tar.gz"
ROOT = os.geteuid() == 0
NOBODY = 65534


def test_the_tree_may_stand_before_or_after_the_verb_or_in_the_environment(operator: Operator) -> None:
    tree = Tree(operator.home / "tree")
    tree.add(NAME, channel="beta")
    operator.run("--tree", tree.root, "promote", "1.2.3", "--dry-run")
    operator.run("promote", "1.2.3", "--dry-run", "--tree", tree.root)
    operator.run("promote", "1.2.3", "--dry-run", REPOTOOL_TREE=str(tree.root))
    operator.run("--tree", tree.root, "promote", "1.2.3", "--dry-run", REPOTOOL_TREE="/nowhere")
    operator.run("--tree", "/nowhere", "promote", "1.2.3", "--dry-run", "--tree", tree.root)
    assert "--tree" in operator.refused(2, "promote", "1.2.3")


def test_what_is_not_a_tree_is_said_to_be_none(operator: Operator) -> None:
    assert "does not exist" in operator.refused(1, "ls", "--tree", "nowhere")
    (operator.home / "file").write_text("")
    assert "is not a folder" in operator.refused(1, "ls", "--tree", "file")
    (operator.home / "empty").mkdir()
    for verb in (("ls",), ("doctor",), ("promote", "1.0.0"), ("block", "1.0.0", "--reason", "x")):
        assert "repotool init" in operator.refused(1, *verb, "--tree", "empty")
    assert list((operator.home / "empty").iterdir()) == []


def test_a_tree_with_a_broken_root_publishes_nothing(shop: Shop) -> None:
    """L22."""
    archive = shop.package()
    root = shop.tree / "metadata" / "1.root.json"
    root.write_bytes(root.read_bytes().replace(b"commandit", b"commandot"))
    assert "no usable TUF root" in shop.refused(1, "publish", archive, "--key", shop.key)
    root.unlink()
    assert "1.root.json" in shop.refused(1, "publish", archive, "--key", shop.key)


def test_a_malformed_repo_toml_is_named(shop: Shop) -> None:
    """L30: never a default in place of what was meant."""
    (shop.tree / "repo.toml").write_text('produkt = "commandit"\n')
    assert "produkt" in shop.refused(1, "promote", "1.2.3")
    (shop.tree / "repo.toml").write_text('product = "other"\n')
    assert "the TUF root says 'commandit'" in shop.refused(1, "publish", shop.package(), "--key", shop.key)


def test_a_missing_key_and_one_that_is_none_are_named(shop: Shop) -> None:
    archive = shop.package()
    assert "no key file" in shop.refused(1, "sign", archive, "--key", "nothing.pem")
    assert "is a folder" in shop.refused(1, "sign", archive, "--key", shop.keys)
    assert "not a private key" in shop.refused(1, "sign", archive, "--key", shop.keys / "root.json")


def test_files_that_are_none_are_named(shop: Shop) -> None:
    """L29."""
    os.mkfifo(shop.home / "service-linux-amd64-1.0.0.bin")
    (shop.home / "service-linux-amd64-1.0.1.bin").mkdir()
    for name in ("service-linux-amd64-1.0.0.bin", "service-linux-amd64-1.0.1.bin"):
        assert "not a regular file" in shop.refused(1, "publish", name, "--key", shop.key)
    assert "there is no file" in shop.refused(1, "publish", "service-linux-amd64-1.0.2.bin", "--key", shop.key)


@pytest.mark.root
@pytest.mark.skipif(not ROOT or shutil.which("setpriv") is None, reason="only root can give a file away")
def test_without_permission_the_operator_is_told_whose_tree_it_is(operator: Operator) -> None:
    """NFR-SEC-004: root without its capabilities is a user like any other."""
    tree = Tree(operator.home / "tree")
    tree.add(NAME, channel="beta")
    for path in (tree.root, *tree.root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    before = snapshot(tree.root)
    for verb in (("promote", "1.2.3"), ("block", "1.2.3", "--reason", "x"), ("doctor", "--accept-removal")):
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", REPOTOOL, *verb, "--tree", tree.root]
        env = {**QUIET, "HOME": str(operator.home)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, done.stderr
        assert "user who owns the tree" in done.stderr
        assert "Traceback" not in done.stderr
    assert snapshot(tree.root) == before


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="only root can mount a small file system")
def test_a_full_disk_leaves_nothing_half_and_the_same_command_goes_on(shop: Shop) -> None:
    """L18, promise 1: a real file system of one megabyte."""
    small = shop.home / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this container does not let root mount")
    try:
        subprocess.run(["cp", "-a", f"{shop.tree}/.", small], check=True)
        big = shop.home / "service-linux-amd64-2.0.0.bin"
        big.write_bytes(os.urandom(900_000))
        filler = small / ".filler"
        filler.write_bytes(bytes(600_000))
        first = shop.package()
        message = shop.refused(5, "publish", first, big, "--key", shop.key, "--tree", small)
        assert "full" in message
        assert "same command" in message
        assert (small / NAME).exists()
        assert list(small.glob("service-linux-amd64-2.0.0*")) == []
        filler.unlink()
        files = shop.facts("publish", first, big, "--key", shop.key, "--tree", small)["files"]
        assert [item["action"] for item in files] == ["nothing", "publish"]
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="only root can mount read-only")
def test_on_a_read_only_mirror_nothing_changes_and_ls_works(shop: Shop) -> None:
    shop.run("publish", shop.package(), "--key", shop.key)
    mirror = shop.home / "mirror"
    mirror.mkdir()
    mounted = subprocess.run(["mount", "--bind", shop.tree, mirror], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this container does not let root mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", mirror], check=True, capture_output=True)
        assert "read-only" in shop.refused(1, "promote", "1.2.3", "--tree", mirror)
        assert len(shop.facts("ls", "--tree", mirror)["releases"]) == 1
    finally:
        subprocess.run(["umount", mirror], check=True)


def test_help_works_for_every_verb(operator: Operator) -> None:
    listed = operator.run("--help")
    verbs = [
        line.split()[0] for line in listed.split("Commands:")[1].split("Exit codes")[0].splitlines() if line.strip()
    ]
    assert len(verbs) == 15
    for verb in verbs:
        assert "Usage: repotool " + verb in operator.run(verb, "--help")
    for verb in ("publish", "promote", "doctor"):
        assert "--json" in operator.run(verb, "--help")
