"""A version is immutable, has one file, and can be recalled (L4, L7, L15)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from support.scanning import Scans, codes, full, offered
from support.trees import Tree

from repo_server.tree import ledger

NAME = "service-linux-amd64-1.2.3.tar.gz"
OTHER = [f"ui-linux-amd64-1.0.{number}.tar.gz" for number in range(3)]
BLOCKED = '{"reason": "loses settings"}'


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make a tree with three releases, so that losing a fourth is no mass removal."""
    tree = Tree(tmp_path / "tree")
    for name in OTHER:
        tree.add(name)
    return tree


def remove(tree: Tree, name: str, folder: str = "") -> list[str]:
    paths = sorted((tree.root / folder).glob(f"{name}*"))
    for path in paths:
        path.unlink()
    return [str(path.relative_to(tree.root)) for path in paths]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_first_verification_is_written_into_the_ledger(tree: Tree) -> None:
    """L7."""
    tree.add(NAME, b"bytes")
    tree.add("probe-linux-amd64-1.0.0.tar.gz", channel=None).write_bytes(b"not what was signed")
    full(tree.root)
    recorded = ledger.read(tree.root, None)
    assert recorded["service-linux-amd64-1.2.3"] == sha256(b"bytes")
    assert len(recorded) == 4


def test_other_bytes_under_a_published_version_are_a_problem_also_when_signed(tree: Tree) -> None:
    """L7: the sidecars were replaced consistently, by somebody who has the release key."""
    tree.add(NAME, b"first")
    scans = Scans(tree.root)
    assert NAME in offered(scans.full())
    tree.add(NAME, b"second")
    changed = [f"{NAME}{suffix}" for suffix in ("", ".sha256", ".sig")]
    for result in (scans.update(*changed), scans.full(), full(tree.root)):
        assert NAME not in offered(result)
        assert codes(result) == {NAME: "bytes_changed"}
        assert sha256(b"first") in result.problems[0].message
    tree.add(NAME, b"first")
    assert NAME in offered(scans.update(*changed))


def test_bytes_that_change_without_their_sidecars_are_withdrawn_at_once(tree: Tree) -> None:
    """L7, L25: first because they do not match, and once they rest because the version is another's."""
    path = tree.add(NAME, b"first")
    scans = Scans(tree.root)
    scans.full()
    path.write_bytes(b"other")
    result = scans.update(path)
    assert codes(result) == {NAME: "bytes_changed"}
    assert NAME not in result.identities


def test_a_digest_sidecar_that_alone_is_wrong_is_a_mismatch_and_not_changed_bytes(tree: Tree) -> None:
    tree.add(NAME, b"first")
    scans = Scans(tree.root)
    scans.full()
    sidecar = tree.root / f"{NAME}.sha256"
    sidecar.write_text(sidecar.read_text().replace(sha256(b"first"), sha256(b"x")))
    assert codes(scans.update(sidecar)) == {NAME: "digest_mismatch"}


def test_a_removed_version_cannot_come_back_with_other_bytes(tree: Tree) -> None:
    """L7: also after its removal, and also for a server that never saw it."""
    tree.add(NAME, b"first")
    scans = Scans(tree.root)
    scans.full()
    gone = remove(tree, NAME)
    assert NAME not in offered(scans.update(*gone))
    tree.add(NAME, b"second", folder="elsewhere")
    for result in (scans.full(), full(tree.root)):
        assert codes(result) == {f"elsewhere/{NAME}": "bytes_changed"}
    remove(tree, NAME, "elsewhere")
    tree.add(NAME, b"first")
    assert NAME in offered(scans.full())


def test_a_ledger_that_another_server_wrote_counts_as_soon_as_it_arrives(tree: Tree) -> None:
    """L7: ``.published`` travels with the tree."""
    tree.add(NAME, b"mine")
    scans = Scans(tree.root)
    scans.full()
    path = tree.root / ".published"
    path.write_text(path.read_text().replace(sha256(b"mine"), sha256(b"theirs")))
    assert codes(scans.update(".published")) == {NAME: "bytes_changed"}


def test_damage_in_the_ledger_is_a_problem_and_nothing_else(tree: Tree) -> None:
    scans = Scans(tree.root)
    scans.full()
    path = tree.root / ".published"
    path.write_text("rubbish\n" + path.read_text())
    result = scans.update(".published")
    assert codes(result) == {".published": "damaged_ledger"}
    assert len(offered(result)) == 3
    path.unlink()
    path.mkdir()
    result = scans.full()
    assert codes(result) == {".published": "damaged_ledger"}
    tree.add(NAME)
    result = scans.full()
    assert "ledger_not_written" in codes(result)[".published"]
    assert NAME in offered(result)
    path.rmdir()
    assert codes(scans.full()) == {}
    assert len(ledger.read(tree.root, None)) == 4


@pytest.mark.parametrize(
    ("stays", "goes"),
    [
        (NAME, NAME.replace(".tar.gz", ".zip")),
        (NAME.replace(".tar.gz", ".zip"), NAME.replace(".tar.gz", "")),
        (f"a/{NAME}", f"bb/{NAME}"),
        (f"a/{NAME}", f"b/{NAME}"),
    ],
)
def test_of_two_files_for_one_release_the_rule_decides_which_stays(tree: Tree, stays: str, goes: str) -> None:
    """L4: the order of exts, then the shorter path, then the alphabet."""
    for path in (goes, stays):
        folder, _, name = path.rpartition("/")
        tree.add(name, b"bytes", folder=folder)
    result = full(tree.root)
    assert set(offered(result)) == {*OTHER, stays}
    assert codes(result) == {goes: "duplicate_release"}


def test_of_two_files_for_one_release_the_one_published_first_stays(tree: Tree) -> None:
    """L4: whatever the rule would say otherwise."""
    late = NAME.replace(".tar.gz", ".zip")
    tree.add(late, b"published first")
    scans = Scans(tree.root)
    scans.full()
    tree.add(NAME, b"came later")
    changed = [f"{NAME}{suffix}" for suffix in ("", ".sha256", ".sig")]
    for result in (scans.update(*changed), full(tree.root)):
        assert late in offered(result)
        assert codes(result) == {NAME: "duplicate_release"}
    gone = remove(tree, late)
    assert codes(scans.update(*gone)) == {NAME: "bytes_changed"}


def test_a_bad_file_does_not_hide_a_good_one_of_the_same_release(tree: Tree) -> None:
    """Promise 3, L4."""
    tree.add(NAME, b"bytes").write_bytes(b"other")
    good = NAME.replace(".tar.gz", ".zip")
    tree.add(good, b"bytes")
    result = full(tree.root)
    assert good in offered(result)
    assert list(codes(result)) == [NAME]


def test_a_release_may_move_between_folders_with_its_sidecars(tree: Tree) -> None:
    """L1."""
    tree.add(NAME, b"bytes", folder="old")
    scans = Scans(tree.root)
    scans.full()
    (tree.root / "new").mkdir()
    for path in (tree.root / "old").iterdir():
        path.rename(tree.root / "new" / path.name)
    result = scans.full()
    assert f"new/{NAME}" in offered(result)
    assert result.problems == ()


def test_a_recalled_release_stays_known_and_is_not_offered(tree: Tree) -> None:
    """L15."""
    tree.add(NAME, b"bytes")
    scans = Scans(tree.root)
    scans.full()
    (tree.root / f"{NAME}.blocked").write_text(BLOCKED)
    result = scans.update(f"{NAME}.blocked")
    release = result.catalogue.at(NAME)
    assert release is not None
    assert release.block is not None
    assert release.block.reason == "loses settings"
    assert result.problems == ()
    (tree.root / f"{NAME}.blocked").unlink()
    assert NAME in offered(scans.update(f"{NAME}.blocked"))


@pytest.mark.parametrize("gone", [("",), ("", ".sha256", ".sig"), (".sha256",), (".sig",)])
def test_a_recall_counts_also_when_the_recalled_file_is_taken_away(tree: Tree, gone: tuple[str, ...]) -> None:
    """L15, L51: devices on it must be moved off it; and there is nothing left to complain about."""
    tree.add(NAME, b"bytes")
    scans = Scans(tree.root)
    scans.full()
    (tree.root / f"{NAME}.blocked").write_text(BLOCKED)
    for suffix in gone:
        (tree.root / f"{NAME}{suffix}").unlink()
    for result in (scans.full(), full(tree.root)):
        release = result.catalogue.at(NAME)
        assert release is not None
        assert release.block is not None
        assert release.sha256 == sha256(b"bytes")
        assert NAME not in result.identities
        assert result.problems == ()


def test_a_recall_counts_also_when_the_recalled_file_is_damaged_and_the_damage_is_shown(tree: Tree) -> None:
    tree.add(NAME, b"bytes", blocked=BLOCKED, meta="{").write_bytes(b"other")
    result = full(tree.root)
    release = result.catalogue.at(NAME)
    assert release is not None
    assert release.block is not None
    assert codes(result) == {NAME: "malformed_meta"}


def test_a_recall_of_something_that_never_was_a_release_is_just_waiting(tree: Tree) -> None:
    (tree.root / f"{NAME}.blocked").write_text(BLOCKED)
    result = full(tree.root)
    assert result.catalogue.at(NAME) is None
    assert codes(result) == {f"{NAME}.blocked": "no_release_file"}


def test_a_recall_beside_one_of_two_files_is_a_recall_of_the_release(tree: Tree) -> None:
    """A recall is about a release, not about a file."""
    tree.add(NAME, b"bytes")
    tree.add(NAME.replace(".tar.gz", ".zip"), b"bytes", blocked=BLOCKED)
    assert set(offered(full(tree.root))) == set(OTHER)
