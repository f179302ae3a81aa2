"""What becomes of a file: pending, offered, blocked or a problem, and never anything else (L8, issue 2's bad input)."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from support.scanning import Scans, codes, full, offered, soon
from support.trees import Tree, signature

from repo_server.core.model import Channel, FileState
from repo_server.core.sidecars import format_sha256
from repo_server.tree.scan import ScanOptions

NAME = "service-linux-amd64-1.2.3.tar.gz"
GOOD = "ui-linux-amd64-1.0.0.tar.gz"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make a tree with one good release that nothing may hide."""
    tree = Tree(tmp_path / "tree")
    tree.add(GOOD)
    return tree


def test_a_complete_release_is_offered_with_what_its_sidecars_say(tree: Tree) -> None:
    """L8, L10 to L15."""
    tree.add(
        NAME,
        b"bytes",
        folder="2026/q4",
        channel="beta",
        meta='{"title": "Faster", "requires": [{"name": "ui", "min_version": "1.0.0"}]}',
        rollout='{"start": "2026-01-01T00:00:00Z", "to": 0.5}',
    )
    result = full(tree.root)
    release = offered(result)[f"2026/q4/{NAME}"]
    assert (release.channel, release.meta.title, release.size) == (Channel.BETA, "Faster", 5)
    assert release.sha256 == hashlib.sha256(b"bytes").hexdigest()
    assert release.rollout is not None
    assert release.rollout.to_share == 0.5
    assert str(release.requires[0]) == "ui >= 1.0.0"
    assert result.identities[release.path].size == 5
    assert result.problems == ()


@pytest.mark.parametrize(
    ("missing", "code", "path"),
    [
        (".sha256", "no_sha256", NAME),
        (".sig", "no_signature", NAME),
        ("", "no_release_file", f"{NAME}.sha256"),
    ],
)
def test_a_release_of_which_something_is_missing_is_pending(tree: Tree, missing: str, code: str, path: str) -> None:
    """L8, L10, L11: pending is not a problem, and shown all the same."""
    tree.add(NAME)
    (tree.root / f"{NAME}{missing}").unlink()
    result = full(tree.root)
    assert list(offered(result)) == [GOOD]
    assert codes(result)[path] == code
    assert {problem.state for problem in result.problems} == {FileState.PENDING}


@pytest.mark.parametrize(
    ("kind", "content", "code"),
    [
        ("sha256", b"\xef\xbb\xbf" + format_sha256("0" * 64, NAME), "malformed_sha256"),
        ("sha256", format_sha256("0" * 64, NAME).replace(b"\n", b"\r\n"), "malformed_sha256"),
        ("sha256", b"", "malformed_sha256"),
        ("sha256", format_sha256("0" * 64, GOOD), "sha256_other_file"),
        ("sig", b"rubbish\n", "malformed_sig"),
        ("sig", b"\xff\xfe\n", "malformed_sig"),
        ("channel", b"nightly\n", "unknown_channel"),
        ("channel", b"stable beta\n", "unknown_channel"),
        ("channel", b"\xef\xbb\xbfstable\n", "malformed_channel"),
        ("channel", b"stable\r\n", "malformed_channel"),
        ("channel", b"stable\nbeta\n", "malformed_channel"),
        ("channel", b"\xff", "malformed_channel"),
        ("channel", b"", "malformed_channel"),
        ("meta", b"{", "malformed_meta"),
        ("meta", b'{"requires": [{"name": "ui", "min_version": "x"}]}', "malformed_meta"),
        ("rollout", b'{"start": "yesterday"}', "malformed_rollout"),
        ("blocked", b"", "malformed_blocked"),
        ("blocked", b"{}", "malformed_blocked"),
        ("meta", b" " * 65537, "sidecar_too_large"),
    ],
)
def test_a_malformed_sidecar_keeps_its_release_out_and_no_other(
    tree: Tree, kind: str, content: bytes, code: str
) -> None:
    """L6, L10 to L15: what an operator wrote is never guessed."""
    tree.add(NAME)
    (tree.root / f"{NAME}.{kind}").write_bytes(content)
    result = full(tree.root)
    assert list(offered(result)) == [GOOD]
    assert codes(result) == {NAME: code}
    assert result.problems[0].state is FileState.PROBLEM


@pytest.mark.parametrize("kind", ["sha256", "sig", "channel", "meta", "rollout", "blocked"])
def test_a_sidecar_of_a_gigabyte_is_refused_unread(tree: Tree, kind: str) -> None:
    """L6: the size is looked at before the content."""
    tree.add(NAME)
    with (tree.root / f"{NAME}.{kind}").open("wb") as file:
        file.truncate(2**30)
    result = full(tree.root)
    assert list(offered(result)) == [GOOD]
    assert codes(result) == {NAME: "sidecar_too_large"}


def test_every_malformed_sidecar_of_a_release_is_named_at_once(tree: Tree) -> None:
    tree.add(NAME, meta="{", rollout="{")
    found = {(problem.path, problem.code) for problem in full(tree.root).problems}
    assert found == {(NAME, "malformed_meta"), (NAME, "malformed_rollout")}


def test_a_file_over_the_size_limit_is_refused_unread(tree: Tree) -> None:
    """L6."""
    (tree.root / "repo.toml").write_text("[limits]\nmax_file_bytes = 1000\n")
    tree.add(NAME, b"x" * 1001)
    assert codes(full(tree.root)) == {NAME: "file_too_large"}


def test_a_signature_by_a_key_that_is_no_release_key_does_not_count(tree: Tree) -> None:
    """L21."""
    tree.add(NAME, b"bytes")
    (tree.root / f"{NAME}.sig").write_bytes(signature(NAME, b"bytes", CryptoSigner.generate_ecdsa()))
    result = full(tree.root)
    assert codes(result) == {NAME: "unknown_key"}
    assert list(offered(result)) == [GOOD]


def test_a_signature_over_another_file_does_not_count(tree: Tree) -> None:
    """L20, L21."""
    tree.add(NAME, b"bytes")
    (tree.root / f"{NAME}.sig").write_bytes(tree.sig(NAME, b"other"))
    assert codes(full(tree.root)) == {NAME: "bad_signature"}


def test_a_signature_over_the_same_bytes_under_another_name_does_not_count(tree: Tree) -> None:
    """L20: name and bytes are signed together, so a renamed release is none."""
    tree.add(NAME, b"bytes")
    (tree.root / f"{NAME}.sig").write_bytes(tree.sig("service-linux-amd64-9.9.9.tar.gz", b"bytes"))
    assert codes(full(tree.root)) == {NAME: "bad_signature"}


def test_signatures_by_unknown_keys_are_left_out_of_an_offered_release(tree: Tree) -> None:
    """L21: so that keys can be rotated."""
    tree.add(NAME, b"bytes")
    stranger = signature(NAME, b"bytes", CryptoSigner.generate_ecdsa())
    (tree.root / f"{NAME}.sig").write_bytes(stranger + tree.sig(NAME, b"bytes"))
    signatures = offered(full(tree.root))[NAME].signatures
    assert [item.key_id for item in signatures] == [tree.release_key.public_key.keyid]


def test_wrong_bytes_are_arriving_while_the_file_is_young_and_a_problem_when_it_rests(tree: Tree) -> None:
    """L24."""
    path = tree.add(NAME, b"right bytes")
    path.write_bytes(b"wrong bytes")
    scans = Scans(tree.root)
    now = datetime.now(UTC)
    assert codes(scans.full(now)) == {NAME: "arriving"}
    wait = scans.scanner.next_look_seconds
    assert wait is not None
    assert 0 < wait <= 2.1
    since = scans.result.problems[0].since if scans.result else None
    assert since == now
    assert codes(scans.update(now=now + timedelta(seconds=1))) == {NAME: "arriving"}
    assert codes(scans.update(now=now + timedelta(seconds=3))) == {NAME: "digest_mismatch"}
    path.write_bytes(b"right bytes")
    assert codes(scans.update(path)) == {}
    assert NAME in offered(scans.full())


def test_a_settled_mismatch_is_not_hashed_again_until_something_changes(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L24: reading the file is counted."""
    path = tree.add(NAME, b"right bytes")
    path.write_bytes(b"wrong bytes")
    scans = Scans(tree.root)
    assert codes(scans.full()) == {NAME: "digest_mismatch"}
    reads = []
    real = os.readv

    def readv(descriptor: int, buffers: list[bytearray]) -> int:
        reads.append(descriptor)
        return real(descriptor, buffers)

    monkeypatch.setattr(os, "readv", readv)
    for _ in range(3):
        assert codes(scans.full()) == {NAME: "digest_mismatch"}
        assert codes(scans.update(path, f"{NAME}.sha256")) == {NAME: "digest_mismatch"}
    assert reads == []
    assert scans.scanner.next_look_seconds is None
    path.write_bytes(b"also wrong!")
    assert codes(scans.update(path)) == {NAME: "digest_mismatch"}
    assert reads != []


def test_a_problem_keeps_the_time_since_when_it_is_there(tree: Tree) -> None:
    """L8."""
    tree.add(NAME)
    (tree.root / f"{NAME}.channel").write_text("nightly\n")
    scans = Scans(tree.root)
    first = soon()
    scans.full(first)
    (tree.root / f"{NAME}.channel").write_text("weekly\n")
    for result in (scans.update(f"{NAME}.channel"), scans.full()):
        assert [(problem.code, problem.since) for problem in result.problems] == [("unknown_channel", first)]
    (tree.root / f"{NAME}.channel").write_text("beta\n")
    assert scans.update(f"{NAME}.channel").problems == ()
    (tree.root / f"{NAME}.channel").write_text("nightly\n")
    later = first + timedelta(days=1)
    assert scans.update(f"{NAME}.channel", now=later).problems[0].since == later


def test_requirements_in_a_circle_keep_the_releases_out_until_one_is_mended(tree: Tree) -> None:
    """L13."""
    tree.add(NAME, meta='{"requires": [{"name": "probe", "min_version": "1.0.0"}]}')
    probe = "probe-linux-amd64-1.0.0.tar.gz"
    tree.add(probe, meta='{"requires": [{"name": "service", "min_version": "1.2.3"}]}')
    scans = Scans(tree.root)
    result = scans.full()
    assert codes(result) == {NAME: "requires_cycle", probe: "requires_cycle"}
    assert list(offered(result)) == [GOOD]
    (tree.root / f"{probe}.meta").write_text("{}")
    assert codes(scans.update(f"{probe}.meta")) == {}
    assert set(offered(scans.full())) == {GOOD, NAME, probe}


def test_two_scans_of_an_unchanged_tree_give_the_same_object(tree: Tree) -> None:
    """So that nobody has to compare 10,000 releases to find out that nothing happened."""
    scans = Scans(tree.root)
    first = scans.full()
    assert scans.full() is first
    assert scans.update(GOOD, f"{GOOD}.channel") is first


def test_a_large_file_does_not_hold_up_a_promotion(tree: Tree) -> None:
    """A scan with little patience goes on without the digest, and the next look has it."""
    tree.add(NAME)
    scans = Scans(tree.root, options=ScanOptions(hash_workers=1))
    scans.full()
    large = "probe-linux-amd64-1.0.0.tar.gz"
    tree.add(large, b"x" * 50_000_000)
    (tree.root / f"{NAME}.channel").write_text("beta\n")
    changed = [large, f"{large}.sha256", f"{large}.sig", f"{NAME}.channel"]
    result = scans.scanner.update(changed, soon(), 0.0)
    assert result.catalogue.at(NAME) is not None
    assert offered(result)[NAME].channel is Channel.BETA
    assert codes(result) == {large: "arriving"}
    wait = scans.scanner.next_look_seconds
    assert wait is not None
    assert wait < 1
    assert large in offered(scans.update())
