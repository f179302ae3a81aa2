"""``repotool publish``: whole or not at all, once and for ever (L7, L17, L18, L21)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.operators import Shop, package_folder, snapshot

from repo_server.core.sidecars import parse_channel, parse_meta, parse_rollout
from repo_server.tree.treeio import tree_lock

NAME = "service-linux-amd64-1.2.3.tar.gz"


def action(shop: Shop, *arguments: str | Path) -> str:
    files = shop.facts("publish", *arguments, "--key", shop.key)["files"]
    assert len(files) == 1
    return str(files[0]["action"])


def test_a_published_release_is_offered(shop: Shop) -> None:
    """L8, L18, FR-SRV-005."""
    archive = shop.package(extra='requires = [{ name = "probe", min_version = "1.0.0" }]')
    assert action(shop, archive) == "publish"
    (release,) = shop.facts("ls")["releases"]
    assert (release["component"], release["version"], release["channel"]) == ("service", "1.2.3", "beta")
    assert release["requires"] == [{"name": "probe", "min_version": "1.0.0"}]
    assert (shop.tree / NAME).read_bytes() == archive.read_bytes()
    assert {path.name.removeprefix(NAME) for path in shop.tree.glob(f"{NAME}*")} == {
        "", ".sha256", ".sig", ".channel", ".meta",
    }  # fmt: skip
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (shop.tree / ".published").read_text() == f"{digest}  service-linux-amd64-1.2.3\n"


def test_the_same_bytes_again_are_nothing_to_do_even_after_promotion(shop: Shop) -> None:
    """L7, L17."""
    archive = shop.package()
    action(shop, archive)
    shop.run("promote", "1.2.3")
    before = snapshot(shop.tree)
    assert action(shop, archive, "--channel", "beta") == "nothing"
    assert action(shop, archive, "--folder", "elsewhere") == "nothing"
    assert snapshot(shop.tree) == before


def test_other_bytes_under_a_published_version_are_refused_also_after_its_removal(shop: Shop) -> None:
    """L7."""
    action(shop, shop.package())
    other = package_folder(shop.home / "other", text="other")
    shop.run("pack", other, "-o", shop.home / "other-out")
    archive = shop.home / "other-out" / NAME
    assert "immutable" in shop.refused(3, "publish", archive, "--key", shop.key)
    for path in shop.tree.glob(f"{NAME}*"):
        path.unlink()
    assert "removal" in shop.refused(3, "publish", archive, "--key", shop.key)
    assert not (shop.tree / NAME).exists()


def test_a_release_has_one_extension(shop: Shop) -> None:
    """L4."""
    action(shop, shop.package())
    shop.run("pack", shop.home / "sources" / "service-1.2.3", "-o", shop.home / "out", "--format", "zip")
    archive = shop.home / "out" / NAME.replace(".tar.gz", ".zip")
    assert "one file" in shop.refused(3, "publish", archive, "--key", shop.key)
    both = (shop.package("2.0.0"), shop.home / "out" / "service-linux-amd64-2.0.0.zip")
    shop.run("pack", shop.home / "sources" / "service-2.0.0", "-o", shop.home / "out", "--format", "zip")
    assert "same release" in shop.refused(2, "publish", *both, "--key", shop.key)


def test_an_unsigned_file_and_one_with_a_foreign_signature_are_refused(shop: Shop, tmp_path: Path) -> None:
    """L21, promise 2."""
    archive = shop.package()
    assert "no .sig" in shop.refused(3, "publish", archive)
    foreign = Shop(tmp_path)
    foreign.run("init", foreign.tree, "--keys", foreign.keys, "--no-passphrase")
    foreign.run("sign", archive, "--key", foreign.key)
    assert "unknown_key" in shop.refused(3, "publish", archive)
    assert "not a release key" in shop.refused(3, "publish", archive, "--key", foreign.key)
    assert not (shop.tree / NAME).exists()


def test_bytes_that_are_not_those_of_the_digest_are_refused(shop: Shop) -> None:
    """L10, L21: a truncated copy, a signature over something else."""
    archive = shop.package()
    shop.run("sign", archive, "--key", shop.key)
    other = shop.package("1.2.4")
    shop.run("sign", other, "--key", shop.key)
    digest = other.with_name(other.name + ".sha256")
    good = digest.read_bytes()
    digest.write_bytes(b"0" * 64 + good[64:])
    assert "does not match" in shop.refused(3, "publish", other)
    digest.write_bytes(good)
    other.with_name(other.name + ".sig").write_bytes(archive.with_name(archive.name + ".sig").read_bytes())
    assert "bad_signature" in shop.refused(3, "publish", other)


def test_one_bad_file_keeps_the_others_back_and_all_faults_are_said(shop: Shop) -> None:
    good, bad = shop.package("1.0.0"), shop.home / "ui-linux-amd64-1.x.tar.gz"
    bad.write_bytes(b"")
    before = snapshot(shop.tree)
    message = shop.refused(1, "publish", good, bad, shop.home / "missing-linux-amd64-1.0.0.bin", "--key", shop.key)
    assert "nothing is published" in message
    assert "1.x" in message
    assert "missing" in message
    assert snapshot(shop.tree) == before


def test_what_is_said_about_a_release_becomes_its_meta_and_rollout(shop: Shop) -> None:
    """L13, L14; of two requirements the higher counts."""
    archive = shop.package(extra='requires = [{ name = "probe", min_version = "1.5.0" }]')
    url = "https://updates.commandit.com/notes/1.2.3"
    shop.run(
        "publish", archive, "--key", shop.key, "--channel", "alpha", "--title", "Faster start", "--notes-url", url,
        "--requires", "probe>=1.2", "--requires", "ui >= 2.0.0", "--rollout", "10%..100%/24h", "--folder", "2026/q4",
    )  # fmt: skip
    path = shop.tree / "2026" / "q4" / NAME
    meta = parse_meta(path.with_name(NAME + ".meta").read_bytes())
    assert (meta.title, meta.release_notes_url) == ("Faster start", url)
    assert [str(item) for item in meta.requires] == ["probe >= 1.5.0", "ui >= 2.0.0"]
    assert meta.published_at is not None
    assert abs(datetime.now(UTC) - meta.published_at) < timedelta(minutes=5)
    rollout = parse_rollout(path.with_name(NAME + ".rollout").read_bytes())
    assert (rollout.from_share, rollout.to_share, rollout.duration_seconds) == (0.1, 1.0, 86400)
    assert parse_channel(path.with_name(NAME + ".channel").read_bytes()) == "alpha"


def test_sidecars_that_lie_beside_a_file_are_taken_along(shop: Shop) -> None:
    archive = shop.package()
    archive.with_name(NAME + ".meta").write_text(json.dumps({"title": "T", "ticket": "OPS-1"}))
    archive.with_name(NAME + ".channel").write_text("alpha\n")
    action(shop, archive)
    assert json.loads((shop.tree / f"{NAME}.meta").read_bytes())["ticket"] == "OPS-1"
    assert (shop.tree / f"{NAME}.channel").read_text() == "alpha\n"
    assert "stand in a .meta" in shop.refused(
        2, "publish", archive_of(shop, "1.2.4"), "--key", shop.key, "--title", "x"
    )


def archive_of(shop: Shop, version: str) -> Path:
    archive = shop.package(version)
    archive.with_name(archive.name + ".meta").write_text("{}")
    return archive


def test_a_file_that_was_dropped_by_hand_is_completed_in_its_place(shop: Shop) -> None:
    """L1, L24."""
    archive = shop.package()
    (shop.tree / "sub").mkdir()
    (shop.tree / "sub" / NAME).write_bytes(archive.read_bytes())
    inode = (shop.tree / "sub" / NAME).stat().st_ino
    assert action(shop, shop.tree / "sub" / NAME) == "complete"
    assert (shop.tree / "sub" / NAME).stat().st_ino == inode
    assert [release["path"] for release in shop.facts("ls")["releases"]] == [f"sub/{NAME}"]
    assert action(shop, archive) == "nothing"


def test_dry_run_writes_nothing_at_all(shop: Shop) -> None:
    archive = shop.package()
    before = snapshot(shop.home)
    facts = shop.facts("publish", archive, "--key", shop.key, "--dry-run")
    assert facts["dry_run"] is True
    assert facts["files"][0]["action"] == "publish"
    assert snapshot(shop.home) == before


def test_while_another_operation_works_on_the_tree_it_is_busy(shop: Shop) -> None:
    """L17: exit code 4, at once."""
    archive = shop.package()
    action(shop, archive)
    with tree_lock(shop.tree):
        for command in (
            ("publish", archive, "--key", shop.key),
            ("promote", "1.2.3"),
            ("block", "1.2.3", "--reason", "x"),
            ("unblock", "1.2.3"),
            ("sign", shop.tree / NAME, "--key", shop.key),
        ):
            assert "another operation" in shop.refused(4, *command)
        shop.run("promote", "1.2.3", "--dry-run")
    shop.run("promote", "1.2.3")


def test_the_lock_of_a_killed_run_holds_nobody_up(shop: Shop) -> None:
    """L17: the kernel lets go of it."""
    descriptor = os.open(shop.tree / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)
    assert action(shop, shop.package()) == "publish"


@pytest.mark.parametrize("folder", ["../out", "metadata", "a/b/c/d", ".hidden", "a//b"])
def test_a_folder_in_which_no_release_is_looked_for_is_refused(shop: Shop, folder: str) -> None:
    """L1, L2."""
    archive = shop.package()
    assert "--folder" in shop.refused(2, "publish", archive, "--key", shop.key, "--folder", folder)


@pytest.mark.parametrize(
    "options",
    [("--rollout", "100%..10%/1h"), ("--rollout", "10%..20%"), ("--rollout", "fast"), ("--rollout", "150%"),
     ("--requires", "probe"), ("--requires", "probe>=x"), ("--notes-url", "ftp://x"), ("--channel", "nightly"),
     ("--external", "true"), ("--public-key", "x")],
)  # fmt: skip
def test_options_that_make_no_sense_are_wrong_usage(shop: Shop, options: tuple[str, str]) -> None:
    archive = shop.package()
    shop.refused(2, "publish", archive, *options)
    assert not (shop.tree / NAME).exists()
