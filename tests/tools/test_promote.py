"""``repotool promote``: one word per file changes, durably, visibly to rsync, as often as you like (L12, L17, L19)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.operators import QUIET, REPOTOOL, Operator, snapshot
from support.trees import Tree

from repo_server.core.model import Channel
from repo_server.core.sidecars import parse_rollout
from repotool.errors import Usage
from repotool.promote import Move, move_of
from repotool.ramp import parse_ramp


@pytest.fixture
def tree(operator: Operator) -> Tree:
    """Three components of 1.2.3 on beta, one of another version, one of 1.2.3 on alpha."""
    tree = Tree(operator.home / "tree")
    for component in ("service", "ui", "probe"):
        tree.add(f"{component}-linux-amd64-1.2.3.tar.gz", channel="beta")
    tree.add("service-linux-amd64-1.2.4.tar.gz", channel="beta", folder="later")
    tree.add("service-windows-arm64-1.2.3.zip", channel="alpha")
    operator.env["REPOTOOL_TREE"] = str(tree.root)
    return tree


def channels(tree: Tree) -> dict[str, str]:
    return {
        path.name.removesuffix(".channel"): path.read_text().strip() for path in sorted(tree.root.rglob("*.channel"))
    }


def test_all_files_of_the_version_move_and_nothing_else_does(operator: Operator, tree: Tree) -> None:
    """FR-SRV-003."""
    before = snapshot(tree.root)
    facts = operator.facts("promote", "1.2.3")
    assert (facts["from"], facts["to"], facts["changed"]) == ("beta", "stable", 3)
    assert channels(tree) == {
        "probe-linux-amd64-1.2.3.tar.gz": "stable",
        "service-linux-amd64-1.2.3.tar.gz": "stable",
        "service-linux-amd64-1.2.4.tar.gz": "beta",
        "service-windows-arm64-1.2.3.zip": "alpha",
        "ui-linux-amd64-1.2.3.tar.gz": "stable",
    }
    changed = {name for name, value in snapshot(tree.root).items() if before.get(name) != value}
    assert changed == {f"{name}-linux-amd64-1.2.3.tar.gz.channel" for name in ("service", "ui", "probe")}
    why = {item["path"]: item["why"] for item in facts["files"]}
    assert why["service-windows-arm64-1.2.3.zip"] == "other_channel"


def test_again_changes_nothing(operator: Operator, tree: Tree) -> None:
    """L17."""
    operator.run("promote", "1.2.3")
    before = snapshot(tree.root)
    facts = operator.facts("promote", "1.2.3")
    assert facts["changed"] == 0
    assert {item["why"] for item in facts["files"]} == {"already", "other_channel"}
    assert snapshot(tree.root) == before
    assert "Nothing to do" in operator.run("promote", "1.2.3")


def test_dry_run_changes_nothing_and_says_the_same(operator: Operator, tree: Tree) -> None:
    before = snapshot(tree.root)
    dry = operator.facts("promote", "1.2.3", "--dry-run")
    assert snapshot(tree.root) == before
    wet = operator.facts("promote", "1.2.3")
    assert dry["files"] == wet["files"]


def test_components_and_platforms_can_be_chosen(operator: Operator, tree: Tree) -> None:
    assert operator.facts("promote", "1.2.3", "--component", "ui", "--component", "probe")["changed"] == 2
    assert operator.facts("promote", "1.2.3", "--os", "linux", "--arch", "amd64")["changed"] == 1
    assert operator.facts("promote", "1.2.3", "--from", "alpha", "--os", "windows")["changed"] == 1
    assert set(channels(tree).values()) == {"stable", "beta"}


def test_a_version_that_does_not_exist_names_its_neighbours(operator: Operator, tree: Tree) -> None:
    message = operator.refused(1, "promote", "1.2.30")
    assert "1.2.3, 1.2.4" in message
    assert "SemVer" in operator.refused(2, "promote", "1.2")


def test_a_blocked_version_is_refused(operator: Operator, tree: Tree) -> None:
    """L15."""
    operator.run("block", "1.2.3", "--component", "ui", "--reason", "bad")
    before = snapshot(tree.root)
    assert "blocked" in operator.refused(3, "promote", "1.2.3")
    assert snapshot(tree.root) == before
    assert operator.facts("promote", "1.2.3", "--component", "probe")["changed"] == 1


def test_a_version_on_another_channel_is_not_silently_left_there(operator: Operator, tree: Tree) -> None:
    assert "--from alpha" in operator.refused(1, "promote", "1.2.3", "--os", "windows")


def test_down_goes_only_who_says_both_channels(operator: Operator, tree: Tree) -> None:
    operator.run("promote", "1.2.3")
    assert "--from and --to" in operator.refused(2, "promote", "1.2.3", "--to", "alpha")
    operator.run("promote", "1.2.3", "--from", "stable", "--to", "beta", "--component", "ui")
    assert channels(tree)["ui-linux-amd64-1.2.3.tar.gz"] == "beta"
    operator.refused(2, "promote", "1.2.3", "--from", "stable")


def test_the_default_is_one_step_up() -> None:
    assert move_of(None, None) == Move(Channel.BETA, Channel.STABLE)
    assert move_of(None, Channel.BETA) == Move(Channel.ALPHA, Channel.BETA)
    assert move_of(Channel.ALPHA, None) == Move(Channel.ALPHA, Channel.STABLE)
    with pytest.raises(Usage):
        move_of(Channel.STABLE, None)


def test_a_malformed_sidecar_stops_everything_before_anything_changed(operator: Operator, tree: Tree) -> None:
    """L12: what an operator wrote is never guessed."""
    (tree.root / "ui-linux-amd64-1.2.3.tar.gz.channel").write_bytes(b"\xef\xbb\xbfbeta\r\n")
    before = snapshot(tree.root)
    assert "byte order mark" in operator.refused(1, "promote", "1.2.3")
    assert snapshot(tree.root) == before
    assert operator.facts("promote", "1.2.3", "--component", "probe")["changed"] == 1


def test_a_ramp_is_written_before_the_channel_and_keeps_what_else_was_said(operator: Operator, tree: Tree) -> None:
    """L14, L16: seed, halt and unknown fields stay; a pause ends."""
    name = "service-linux-amd64-1.2.3.tar.gz"
    old = {"start": "2020-01-01T00:00:00Z", "from": 0.5, "to": 0.5, "seed": "s", "paused": True,
           "halted": {"at": "x"}, "halt": {"failures": 0.2}, "ticket": "OPS-9"}  # fmt: skip
    (tree.root / f"{name}.rollout").write_text(json.dumps(old))
    assert "paused" in operator.run("promote", "1.2.3", "--dry-run")
    operator.run("promote", "1.2.3", "--rollout", "10%..100%/24h")
    fresh = json.loads((tree.root / f"{name}.rollout").read_bytes())
    rollout = parse_rollout((tree.root / f"{name}.rollout").read_bytes())
    assert (fresh["seed"], fresh["ticket"], fresh["halt"]["failures"]) == ("s", "OPS-9", 0.2)
    assert (rollout.from_share, rollout.to_share, rollout.duration_seconds) == (0.1, 1.0, 86400)
    assert (rollout.paused, rollout.halted) == (False, False)
    assert abs((datetime.now(UTC) - rollout.start).total_seconds()) < 300
    before = snapshot(tree.root)
    assert operator.facts("promote", "1.2.3", "--rollout", "10%..100%/24h")["changed"] == 0
    assert snapshot(tree.root) == before
    assert operator.facts("promote", "1.2.3", "--rollout", "50%..100%/1h")["changed"] == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10%..100%/24h", (0.1, 1.0, 86400)), ("25%", (0.25, 0.25, 0)), ("0%..50%/7d", (0.0, 0.5, 604800)),
     ("12.5% .. 50% / 90m", (0.125, 0.5, 5400))],
)  # fmt: skip
def test_ramps_are_read_as_they_are_written(text: str, expected: tuple[float, float, int]) -> None:
    """L14."""
    ramp = parse_ramp(text)
    assert (ramp.from_share, ramp.to_share, ramp.duration_seconds) == expected


@pytest.mark.parametrize("text", ["\u0661\u0660%", "10%..\u096a0%/24h", "10%..40%/\uff12h"])
def test_a_ramp_that_could_be_misread_is_refused(text: str) -> None:
    """L14: also digits of other scripts, which Python would take for numbers."""
    with pytest.raises(Usage):
        parse_ramp(text)


def test_rsync_carries_a_promotion_that_came_within_the_same_second(operator: Operator, tree: Tree) -> None:
    """L19: rsync compares sizes and whole seconds, and ``stable`` is as long as ``alpha`` with its line feed."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    mirror = operator.home / "mirror"
    sync = ["rsync", "-rt", f"{tree.root}/", f"{mirror}/"]
    subprocess.run(sync, check=True)
    sidecar = tree.root / "ui-linux-amd64-1.2.3.tar.gz.channel"
    sidecar.write_text("stable")  # As long as "alpha\n", and made by hand,
    os.utime(sidecar, (time.time() + 60, time.time() + 60))  # on a machine whose clock is fast.
    subprocess.run(sync, check=True)
    before = int(sidecar.stat().st_mtime)
    operator.run("promote", "1.2.3", "--from", "stable", "--to", "alpha", "--component", "ui")
    assert sidecar.stat().st_size == len("stable")
    assert int(sidecar.stat().st_mtime) > before
    subprocess.run(sync, check=True)
    assert (mirror / sidecar.name).read_text() == "alpha\n"


def test_a_thousand_files_move_in_one_go(operator: Operator) -> None:
    """L17: and again is a no-op. The limit is generous; the aim is well under two seconds."""
    tree = Tree(operator.home / "tree")
    platforms = ("linux-amd64", "linux-arm64", "windows-amd64", "macos-arm64")
    for number in range(1000):
        folder = tree.root / f"f{number % 20}"
        folder.mkdir(exist_ok=True)
        name = f"c{number // 4}-{platforms[number % 4]}-1.2.3.bin"
        (folder / name).write_bytes(b"x")
        (folder / f"{name}.channel").write_bytes(b"beta\n")
    (tree.root / "repo.toml").write_text(f"components = {[f'c{number}' for number in range(250)]}\n")
    started = time.monotonic()
    facts = operator.facts("promote", "1.2.3", "--tree", tree.root)
    took = time.monotonic() - started
    assert facts["changed"] == 1000
    assert took < 60
    assert set(channels(tree).values()) == {"stable"}
    assert operator.facts("promote", "1.2.3", "--tree", tree.root)["changed"] == 0


def test_a_link_with_a_releases_name_is_not_touched(operator: Operator, tree: Tree) -> None:
    """L29."""
    outside = operator.home / "outside"
    outside.write_text("beta\n")
    (tree.root / "updater-linux-amd64-1.2.3.tar.gz").symlink_to(outside)
    assert operator.facts("promote", "1.2.3")["changed"] == 3
    sidecar = tree.root / "later" / "service-linux-amd64-1.2.4.tar.gz.channel"
    sidecar.unlink()
    sidecar.symlink_to(outside)
    assert "link" in operator.refused(1, "promote", "1.2.4")
    assert outside.read_text() == "beta\n"


def test_a_script_is_not_asked_and_needs_no_yes(operator: Operator, tree: Tree) -> None:
    done = operator.attempt("promote", "1.2.3", stdin=b"")
    assert done.returncode == 0
    assert Path(tree.root / "ui-linux-amd64-1.2.3.tar.gz.channel").read_text() == "stable\n"


def test_on_a_terminal_the_operator_is_asked_and_no_means_no(operator: Operator, tree: Tree) -> None:
    """A real pseudo-terminal."""
    script = shutil.which("script")
    if script is None:
        pytest.skip("script (util-linux) is not installed")
    before = snapshot(tree.root)
    command = ["script", "-qec", f"{shutil.which('env')} repotool promote 1.2.3", "/dev/null"]
    answers = {"n\n": "beta", "y\n": "stable"}
    env = {**QUIET, **operator.env, "PATH": f"{REPOTOOL.parent}:{QUIET['PATH']}", "TERM": "xterm"}
    for answer, channel in answers.items():
        done = subprocess.run(command, input=answer.encode(), capture_output=True, env=env, timeout=60, check=False)
        assert b"Move 3 files of 1.2.3 to stable?" in done.stdout, done.stdout
        assert channels(tree)["ui-linux-amd64-1.2.3.tar.gz"] == channel
        if channel == "beta":
            assert {k: v[0] for k, v in snapshot(tree.root).items() if k != ".lock"} == {
                k: v[0] for k, v in before.items()
            }
