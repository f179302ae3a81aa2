"""Losing most releases at once is an accident until somebody says otherwise (L26)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.scanning import Scans, codes, offered
from support.trees import Tree

from repo_server.tree import scan
from repo_server.tree.rules import RuleBook

NAMES = [f"service-linux-amd64-1.{number}.0.tar.gz" for number in range(10)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make a tree with ten releases."""
    tree = Tree(tmp_path / "tree")
    for name in NAMES:
        tree.add(name, folder="all")
    return tree


def remove(tree: Tree, names: list[str]) -> list[Path]:
    paths = [path for name in names for path in sorted((tree.root / "all").glob(f"{name}*"))]
    for path in paths:
        path.unlink()
    return paths


@pytest.fixture
def scans(tree: Tree) -> Scans:
    scans = Scans(tree.root)
    assert len(offered(scans.full())) == 10
    return scans


@pytest.mark.parametrize("place", [(RuleBook, "read"), (scan, "examine")], ids=["rules", "bytes"])
def test_a_tree_that_goes_in_the_middle_of_a_look_takes_nothing_with_it(
    tree: Tree, scans: Scans, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str]
) -> None:
    """A disk is unmounted: its folders can still be listed, and its rules and bytes are gone."""
    owner, name = place
    really, away = getattr(owner, name), tree.root.with_name("away")

    def gone(*arguments: Any) -> Any:
        if tree.root.exists():
            tree.root.rename(away)
        return really(*arguments)

    before = scans.full()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, gone)
        (tree.root / "all" / f"{NAMES[0]}.channel").write_text("beta\n")
        result = scans.full()
    assert offered(result) == offered(before)
    assert codes(result) == {"": "tree_unreadable"}
    tree.root.mkdir()
    result = scans.full()
    assert offered(result).keys() == offered(before).keys()
    assert "mass_removal" in codes(result)[""]
    tree.root.rmdir()
    away.rename(tree.root)
    result = scans.full()
    assert codes(result) == {}
    assert offered(result)[f"all/{NAMES[0]}"].channel == "beta"


def test_half_of_the_releases_may_go_without_a_word(tree: Tree, scans: Scans) -> None:
    remove(tree, NAMES[:5])
    assert sorted(offered(scans.full())) == [f"all/{name}" for name in NAMES[5:]]
    assert codes(scans.full()) == {}


def test_more_than_half_stay_in_the_catalogue_with_a_problem(tree: Tree, scans: Scans) -> None:
    remove(tree, NAMES[:6])
    for _ in range(2):
        result = scans.full()
        assert len(offered(result)) == 10
        assert codes(result) == {"": "mass_removal"}
        assert "--accept-removal" in result.problems[0].message


def test_a_removal_in_many_small_steps_counts_as_one(tree: Tree, scans: Scans) -> None:
    """``rm -r`` as a watcher sees it: some files at a time."""
    for name in NAMES[:6]:
        result = scans.update(*remove(tree, [name]))
    assert len(offered(result)) == 10
    assert codes(result) == {"": "mass_removal"}


def test_an_emptied_tree_keeps_everything_though_its_root_of_trust_is_gone_too(tree: Tree, scans: Scans) -> None:
    for path in tree.root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = scans.full()
    assert len(offered(result)) == 10
    assert codes(result) == {"": "mass_removal no_root", "repo.toml": "invalid_policy"}


def test_a_tree_that_is_away_keeps_everything_and_comes_back_by_itself(tree: Tree, scans: Scans) -> None:
    away = tree.root.with_name("away")
    tree.root.rename(away)
    result = scans.full()
    assert len(offered(result)) == 10
    assert codes(result) == {"": "tree_unreadable"}
    assert codes(scans.update("all")) == {"": "tree_unreadable"}
    away.rename(tree.root)
    assert codes(scans.update()) == {}
    assert len(offered(scans.full())) == 10


def test_the_operator_confirms_a_removal_once(tree: Tree, scans: Scans) -> None:
    gone = remove(tree, NAMES[:9])
    scans.update(*gone)
    marker = tree.root / ".accept-removal"
    marker.touch()
    result = scans.update(".accept-removal")
    assert list(offered(result)) == [f"all/{NAMES[9]}"]
    assert codes(result) == {}
    assert not marker.exists()
    tree.add(NAMES[0], folder="all")
    tree.add(NAMES[1], folder="all")
    assert len(offered(scans.full())) == 3
    remove(tree, NAMES)
    assert codes(scans.full()) == {"": "mass_removal"}


def test_a_confirmation_does_not_lie_in_wait_for_the_next_accident(tree: Tree, scans: Scans) -> None:
    (tree.root / ".accept-removal").touch()
    assert codes(scans.full()) == {}
    remove(tree, NAMES)
    assert codes(scans.full()) == {"": "mass_removal"}


def test_releases_that_come_back_end_the_problem(tree: Tree, scans: Scans) -> None:
    backup = tree.root.with_name("backup")
    shutil.copytree(tree.root / "all", backup)
    remove(tree, NAMES[:8])
    assert codes(scans.full()) == {"": "mass_removal"}
    shutil.copytree(backup, tree.root / "all", dirs_exist_ok=True)
    result = scans.full()
    assert codes(result) == {}
    assert len(offered(result)) == 10


def test_what_is_left_is_judged_as_always_while_the_others_are_kept(tree: Tree, scans: Scans) -> None:
    """A recall and a new release count also now; and a release that is wrong is not kept."""
    remove(tree, NAMES[:7])
    (tree.root / "all" / f"{NAMES[8]}.blocked").write_text('{"reason": "bad"}')
    (tree.root / "all" / f"{NAMES[9]}.channel").write_text("nightly\n")
    tree.add("ui-linux-amd64-1.0.0.tar.gz")
    result = scans.full()
    recalled = result.catalogue.at(f"all/{NAMES[8]}")
    assert recalled is not None
    assert recalled.block is not None
    assert set(offered(result)) == {"ui-linux-amd64-1.0.0.tar.gz", *(f"all/{name}" for name in NAMES[:8])}
    assert codes(result) == {"": "mass_removal", f"all/{NAMES[9]}": "unknown_channel"}


def test_a_kept_release_is_kept_as_it_was_last_seen(tree: Tree, scans: Scans) -> None:
    """A recall must not be forgotten because the disk went after it."""
    path = tree.root / "all" / f"{NAMES[0]}.blocked"
    path.write_text('{"reason": "bad"}')
    scans.update(path)
    remove(tree, NAMES)
    kept = scans.full().catalogue.at(f"all/{NAMES[0]}")
    assert kept is not None
    assert kept.block is not None


def test_many_problems_at_once_are_no_removal_and_nothing_of_them_stays(tree: Tree, scans: Scans) -> None:
    """L7, L26: bytes that changed are never offered, however many did."""
    for name in NAMES:
        (tree.root / "all" / name).write_bytes(b"other")
    result = scans.full()
    assert offered(result) == {}
    assert set(codes(result).values()) == {"bytes_changed"}


def test_a_release_whose_bytes_changed_is_not_brought_back_when_it_goes_missing(tree: Tree, scans: Scans) -> None:
    """L7, L26."""
    path = tree.root / "all" / NAMES[0]
    path.write_bytes(b"other")
    scans.update(path)
    remove(tree, NAMES)
    result = scans.full()
    assert codes(result) == {"": "mass_removal"}
    assert sorted(offered(result)) == [f"all/{name}" for name in NAMES[1:]]
