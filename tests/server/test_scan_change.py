"""What a scan says has changed is what comparing everything finds: workers and the log are told by it (design §9)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.scanning import Scans
from support.trees import Tree

from repo_server.tree.differences import differences
from repo_server.tree.live import ScanResult, Snapshot
from repo_server.tree.treeio import write_atomic
from repo_server.workers.messages import News, decode, encode
from repo_server.workers.news import apply, news

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ONE, TWO, THREE = (f"service-linux-amd64-1.{number}.0.tar.gz" for number in (1, 2, 3))


def promote(tree: Tree) -> None:
    write_atomic(tree.root / f"{ONE}.channel", b"alpha\n")


def recall(tree: Tree) -> None:
    write_atomic(tree.root / f"{TWO}.blocked", b'{"reason": "bad"}')


def move(tree: Tree) -> None:
    (tree.root / "deep").mkdir()
    for path in sorted(tree.root.glob(f"{THREE}*")):
        path.rename(tree.root / "deep" / path.name)


def damage(tree: Tree) -> None:
    (tree.root / ONE).write_bytes(b"other bytes under the same version")


def take_away(tree: Tree) -> None:
    for path in tree.root.glob(f"{TWO}*"):
        path.unlink()


def make_circle(tree: Tree) -> None:
    for path, other in ((THREE, "ui"), ("ui-linux-amd64-1.0.0.tar.gz", "service")):
        requires = f'{{"requires": [{{"name": "{other}", "min_version": "1.0.0"}}]}}'
        write_atomic(tree.root / f"{path}.meta", requires.encode())


def touch(tree: Tree) -> None:
    (tree.root / THREE).touch()


def set_floor(tree: Tree) -> None:
    write_atomic(tree.root / "repo.toml", b'product = "commandit"\n[floors]\nservice = "1.1.0"\n')


def add(tree: Tree) -> None:
    tree.add("probe-linux-amd64-9.0.0.tar.gz")


ALL = (promote, recall, touch, add, make_circle, set_floor, move, damage, take_away)


def scanned(scans: Scans, tree: Tree, edit: Callable[[Tree], None], *, whole: bool) -> ScanResult:
    """Edit the tree and look at it: at what changed, or at everything."""
    before = {path: path.stat().st_mtime_ns for path in tree.root.rglob("*") if path.is_file()}
    edit(tree)
    after = {path: path.stat().st_mtime_ns for path in tree.root.rglob("*") if path.is_file()}
    return scans.full() if whole else scans.update(*(path for path, _ in before.items() ^ after.items()))


def told(before: Snapshot | None, after: Snapshot) -> News:
    """Return the news as they arrive."""
    message = decode(encode(news(before, after)))
    assert isinstance(message, News)
    return message


@pytest.mark.parametrize("whole", [False, True], ids=["told", "looked for"])
def test_the_change_that_a_scan_tells_is_the_one_that_comparing_everything_finds(
    tmp_path: Path, *, whole: bool
) -> None:
    tree = Tree(tmp_path / "tree")
    for name in (ONE, TWO, THREE, "ui-linux-amd64-1.0.0.tar.gz"):
        tree.add(name, name.encode())
    scans = Scans(tree.root)
    before = scans.full()
    behind = apply(told(None, Snapshot(1, before, NOW)), None)
    for number, edit in enumerate(ALL, 2):
        after = scanned(scans, tree, edit, whole=whole)
        assert after is not before, edit
        assert after.followed is not None
        quick, thorough = after.since(before), dataclasses.replace(after, followed=None).since(before)
        assert set(quick.gone) == set(thorough.gone), edit
        assert {release.path: release for release in quick.added} == {item.path: item for item in thorough.added}, edit
        assert quick.identities == thorough.identities, edit
        assert set(quick.unidentified) == set(thorough.unidentified), edit
        assert differences(before, after) == differences(before, dataclasses.replace(after, followed=None)), edit
        behind = apply(told(Snapshot(number - 1, before, NOW), Snapshot(number, after, NOW)), behind)
        assert behind.result == after, edit
        before = after
