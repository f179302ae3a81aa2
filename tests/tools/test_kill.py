"""SIGKILL at every system call with which repotool changes anything: old or new per file, and a rerun finishes.

strace counts the calls and kills; each call is entered but not done, so every state between two calls is seen (L17,
L18, promise 1).
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.operators import QUIET, REPOTOOL, Operator, Shop
from support.trees import Tree

from repo_server.core.model import Channel
from repo_server.core.sidecars import parse_channel, parse_rollout
from repo_server.tree.treeio import TEMPORARY_PREFIX
from repotool.initialise import MARKER
from repotool.publish import UNFINISHED_PREFIX
from repotool.tree import FIRST_ROOT

CALLS = "fsync,rename,renameat,renameat2,unlink,unlinkat,link,linkat,ftruncate,mkdir"
MOST = 80
"""More calls than any of these operations makes; reaching it is a fault of the test."""


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.skipif(not strace_works(), reason="needs strace, and the right to trace"),
    pytest.mark.timeout(300),
]


def killed_at_every_call(operator: Operator, *arguments: str | Path) -> Iterator[int]:
    """Run repotool again and again, killed at its first, second, … changing call; end when one run got through."""
    env = {**QUIET, "HOME": str(operator.home), "PYTHONDONTWRITEBYTECODE": "1", **operator.env}
    for number in range(1, MOST):
        inject = f"inject={CALLS}:signal=SIGKILL:when={number}"
        command = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", inject]
        done = subprocess.run(
            [*command, REPOTOOL, *arguments], capture_output=True, env=env, cwd=operator.home, timeout=60, check=False
        )
        if done.returncode == 0:
            return
        assert done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}, (number, done.stderr.decode())
        yield number
    pytest.fail(f"not through after {MOST} calls")


def shape(*folders: Path) -> frozenset[str]:
    """Return which files are there, whatever random names the temporary ones have: reruns are tried once for each."""
    names = {str(path.relative_to(folder.parent)) for folder in folders for path in folder.rglob("*")}
    return frozenset(re.sub(rf"{re.escape(TEMPORARY_PREFIX)}\w+", TEMPORARY_PREFIX, name) for name in names)


def test_publish_killed_anywhere_leaves_no_release_or_a_whole_one(shop: Shop) -> None:
    """L18: whatever has a .sha256 is complete."""
    archive = shop.package()
    name = archive.name
    seen: set[frozenset[str]] = set()
    finished_from: set[frozenset[str]] = set()
    clean = shop.home / "clean"
    shutil.copytree(shop.tree, clean)
    arguments = ("publish", archive, "--key", shop.key, "--rollout", "10%..100%/24h", "--folder", "a/b")
    for number in killed_at_every_call(shop, *arguments):
        folder = shop.tree / "a" / "b"
        present = frozenset(path.name.removeprefix(name) for path in folder.glob(f"{name}*"))
        seen.add(present)
        if "" in present:
            assert (folder / name).read_bytes() == archive.read_bytes()
        if ".sha256" in present:
            assert present == {"", ".meta", ".rollout", ".channel", ".sig", ".sha256"}, number
        if shape(shop.tree) not in finished_from:
            finished_from.add(shape(shop.tree))
            check_that_a_rerun_finishes(shop, archive, *arguments)
        shutil.rmtree(shop.tree)
        shutil.copytree(clean, shop.tree)
    assert len(seen) == 7  # nothing, the file, then one sidecar after the other
    assert shop.facts("ls")["releases"][0]["path"] == f"a/b/{name}"


def check_that_a_rerun_finishes(shop: Shop, archive: Path, *arguments: str | Path) -> None:
    """Run the same command on a copy of the tree."""
    copy, name = shop.home / "copy", archive.name
    shutil.copytree(shop.tree, copy)
    shop.run(*arguments, "--tree", copy)
    finished = {path.name.removeprefix(name) for path in (copy / "a" / "b").glob(f"{name}*")}
    assert finished == {"", ".meta", ".rollout", ".channel", ".sig", ".sha256"}
    assert (copy / "a" / "b" / name).read_bytes() == archive.read_bytes()
    assert list(copy.rglob(f"{UNFINISHED_PREFIX}*")) == []
    shutil.rmtree(copy)


def test_promote_killed_anywhere_leaves_each_file_old_or_new(operator: Operator) -> None:
    """L17, L19: and the ramp is never missing where the channel is new."""
    tree = Tree(operator.home / "tree")
    operator.env["REPOTOOL_TREE"] = str(tree.root)
    names = [f"{component}-{platform}-1.2.3.zip" for component in ("service", "ui", "probe", "updater")
             for platform in ("linux-amd64", "linux-arm64", "macos-arm64", "windows-amd64")]  # fmt: skip
    for name in names:
        tree.add(name, channel="beta")
    states = set()
    for _ in killed_at_every_call(operator, "promote", "1.2.3", "--rollout", "10%..100%/24h"):
        for name in names:
            channel = parse_channel((tree.root / f"{name}.channel").read_bytes())
            rollout = tree.root / f"{name}.rollout"
            ramp = parse_rollout(rollout.read_bytes()) if rollout.exists() else None
            states.add((channel, ramp is not None))
            assert ramp is None or ramp.from_share == 0.1
        copy = operator.home / "copy"
        shutil.copytree(tree.root, copy)
        operator.run("promote", "1.2.3", "--rollout", "10%..100%/24h", "--tree", copy)
        assert {(copy / f"{name}.channel").read_text() for name in names} == {"stable\n"}
        shutil.rmtree(copy)
        for name in names:
            (tree.root / f"{name}.channel").write_text("beta\n")
            (tree.root / f"{name}.rollout").unlink(missing_ok=True)
    assert (Channel.STABLE, False) not in states
    assert (Channel.STABLE, True) in states
    assert (Channel.BETA, True) in states


def test_init_killed_anywhere_is_finished_by_running_it_again(operator: Operator) -> None:
    """NFR-SEC-004: no key is lost or replaced on the way; after the end nothing is overwritten."""
    tree, keys = operator.home / "tree", operator.home / "keys"
    arguments = ("init", tree, "--keys", keys, "--no-passphrase")
    finished_from: set[frozenset[str]] = set()
    for _ in killed_at_every_call(operator, *arguments):
        if shape(tree, keys) not in finished_from:
            finished_from.add(shape(tree, keys))
            check_that_init_finishes(operator, tree, keys, *arguments)
        shutil.rmtree(tree)
        shutil.rmtree(keys, ignore_errors=True)
    operator.refused(3, *arguments)


def check_that_init_finishes(operator: Operator, tree: Path, keys: Path, *arguments: str | Path) -> None:
    """Run the same command again, unless it was killed when all was done."""
    before = {path.name: path.read_bytes() for path in keys.glob("*.pem")}
    if (keys / MARKER).exists() or not (tree / FIRST_ROOT).exists():
        operator.run(*arguments)
    for name, pem in before.items():
        assert (keys / name).read_bytes() == pem
    root = (tree / "metadata" / "1.root.json").read_bytes()
    assert root == (keys / "root.json").read_bytes()
    assert json.loads(root)["signed"]["version"] == 1


def test_block_killed_anywhere_leaves_no_half_file(operator: Operator) -> None:
    """L18."""
    tree = Tree(operator.home / "tree")
    operator.env["REPOTOOL_TREE"] = str(tree.root)
    tree.add("service-linux-amd64-1.2.3.zip")
    blocked = tree.root / "service-linux-amd64-1.2.3.zip.blocked"
    for _ in killed_at_every_call(operator, "block", "1.2.3", "--reason", "bad"):
        if blocked.exists():
            assert json.loads(blocked.read_bytes())["reason"] == "bad"
        blocked.unlink(missing_ok=True)
    assert json.loads(blocked.read_bytes())["reason"] == "bad"
