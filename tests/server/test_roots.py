"""The chain of roots, followed in TUF's way (L22)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from support.trees import PRODUCT
from tuf.api._payload import Root
from tuf.api.metadata import Metadata

from repo_server.core.keys import release_keys_fields
from repo_server.tree import roots

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, SECOND, RELEASE, ONLINE = (CryptoSigner.generate_ecdsa() for _ in range(4))


def root(
    version: int,
    keys: list[CryptoSigner],
    signers: list[CryptoSigner],
    *,
    threshold: int = 1,
    expires: datetime = NOW + timedelta(days=100),
    release: CryptoSigner = RELEASE,
    product: str = PRODUCT,
) -> bytes:
    fields = release_keys_fields(product, [release.public_key], 1)
    content = Root(version=version, expires=expires, unrecognized_fields=fields)
    for key in keys:
        content.add_key(key.public_key, "root")
    content.roles["root"].threshold = threshold
    for role in ("targets", "snapshot", "timestamp"):
        content.add_key(ONLINE.public_key, role)
    metadata = Metadata(content)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def tree(folder: Path, **files: bytes) -> Path:
    (folder / "metadata").mkdir()
    for name, data in files.items():
        (folder / "metadata" / f"{name.removeprefix('v')}.root.json").write_bytes(data)
    return folder


def found(reading: roots.RootReading) -> tuple[int | None, list[tuple[str, str]]]:
    version = reading.trusted.root.version if reading.trusted is not None else None
    return version, [(problem.path, problem.code) for problem in reading.problems]


def test_the_newest_root_of_a_good_chain_is_trusted(tmp_path: Path) -> None:
    """NFR-SEC-006: keys are rotated by a new root."""
    other = CryptoSigner.generate_ed25519()
    chain = {"v1": root(1, [FIRST], [FIRST]), "v2": root(2, [SECOND], [FIRST, SECOND], release=other)}
    reading = roots.read(tree(tmp_path, **chain), NOW)
    assert found(reading) == (2, [])
    assert reading.trusted is not None
    assert list(reading.trusted.keys.keys) == [other.public_key.keyid]


def test_a_folder_of_roots_that_cannot_be_read_is_not_taken_for_absent(tmp_path: Path) -> None:
    """L22: the advice to make a new root would be the wrong one."""
    (tmp_path / "metadata").write_text("")
    assert found(roots.read(tmp_path, NOW)) == (None, [("metadata", "unreadable_folder")])


def test_a_tree_without_roots_has_no_root(tmp_path: Path) -> None:
    assert found(roots.read(tmp_path, NOW)) == (None, [("", "no_root")])
    assert found(roots.read(tree(tmp_path), NOW)) == (None, [("", "no_root")])


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (root(2, [SECOND], [SECOND]), "not signed by enough"),
        (root(2, [SECOND], [FIRST]), "not signed by enough"),
        (root(3, [FIRST], [FIRST]), "version 3; expected 2"),
        (root(2, [FIRST, SECOND], [FIRST], threshold=2), "not signed by enough"),
        (root(2, [FIRST], [FIRST], product="another"), "product another"),
        (b"{}", "not TUF metadata"),
        (b"", "not TUF metadata"),
        (b'{"signed": {"_type": "root"}, "signatures": []}', "not TUF metadata"),
        (b"[" * 100_000, "not TUF metadata"),
    ],
)
def test_a_root_that_does_not_follow_is_a_problem_and_the_one_before_stays(
    tmp_path: Path, second: bytes, why: str
) -> None:
    reading = roots.read(tree(tmp_path, v1=root(1, [FIRST], [FIRST]), v2=second), NOW)
    assert found(reading) == (1, [("metadata/2.root.json", "invalid_root")])
    assert why in reading.problems[0].message


def test_a_gap_ends_the_chain_and_what_lies_behind_it_is_a_problem(tmp_path: Path) -> None:
    chain = {"v1": root(1, [FIRST], [FIRST]), "v3": root(3, [FIRST], [FIRST])}
    reading = roots.read(tree(tmp_path, **chain), NOW)
    assert found(reading) == (1, [("metadata/3.root.json", "invalid_root")])
    assert "metadata/2.root.json is missing" in reading.problems[0].message


@pytest.mark.parametrize("first", [b"", b"null", root(2, [FIRST], [FIRST]), root(1, [FIRST], [SECOND])])
def test_an_unusable_first_root_means_that_nothing_is_trusted(tmp_path: Path, first: bytes) -> None:
    assert found(roots.read(tree(tmp_path, v1=first), NOW)) == (None, [("metadata/1.root.json", "invalid_root")])


def test_the_chain_starts_at_the_lowest_root(tmp_path: Path) -> None:
    chain = {"v4": root(4, [FIRST], [FIRST]), "v5": root(5, [FIRST], [FIRST])}
    assert found(roots.read(tree(tmp_path, **chain), NOW)) == (5, [])


def test_a_pinned_root_is_where_the_chain_starts_whatever_lies_in_the_tree(tmp_path: Path) -> None:
    """L22: an attacker who replaces 1.root.json gets nowhere with a server that pins one."""
    pinned = root(1, [FIRST], [FIRST])
    evil = root(1, [SECOND], [SECOND])
    home = tree(tmp_path, v1=evil, v2=root(2, [SECOND], [SECOND]))
    reading = roots.read(home, NOW, pinned)
    assert found(reading) == (1, [("metadata/2.root.json", "invalid_root")])
    (home / "metadata" / "2.root.json").write_bytes(root(2, [SECOND], [FIRST, SECOND]))
    assert found(roots.read(home, NOW, pinned)) == (2, [])


def test_an_expired_root_stays_in_force_and_is_a_problem(tmp_path: Path) -> None:
    """Availability: what to do with an expired root is the endpoints' decision."""
    old = root(1, [FIRST], [FIRST], expires=NOW - timedelta(days=1))
    assert found(roots.read(tree(tmp_path, v1=old), NOW)) == (1, [("metadata/1.root.json", "root_expired")])


def test_an_expired_root_in_the_middle_is_nothing_unusual(tmp_path: Path) -> None:
    old = root(1, [FIRST], [FIRST], expires=NOW - timedelta(days=1))
    assert found(roots.read(tree(tmp_path, v1=old, v2=root(2, [FIRST], [FIRST])), NOW)) == (2, [])


def test_a_root_is_not_read_through_a_link_and_not_if_it_is_huge(tmp_path: Path) -> None:
    """L6, L29."""
    (tmp_path / "outside.json").write_bytes(root(1, [FIRST], [FIRST]))
    home = tree(tmp_path)
    (home / "metadata" / "1.root.json").symlink_to(tmp_path / "outside.json")
    assert roots.read(home, NOW).trusted is None
    (home / "metadata" / "1.root.json").unlink()
    with (home / "metadata" / "1.root.json").open("wb") as file:
        file.truncate(2**30)
    reading = roots.read(home, NOW)
    assert reading.trusted is None
    assert "cannot be read" in reading.problems[0].message


def test_the_fingerprint_follows_the_release_keys_and_nothing_else(tmp_path: Path) -> None:
    same = roots.follow({1: root(1, [FIRST], [FIRST])}, NOW), roots.follow({1: root(1, [SECOND], [SECOND])}, NOW)
    other = roots.follow({1: root(1, [FIRST], [FIRST], release=SECOND)}, NOW)
    fingerprints = [reading.trusted.fingerprint for reading in (*same, other) if reading.trusted is not None]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
