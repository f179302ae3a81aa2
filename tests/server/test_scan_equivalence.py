"""Whatever happens to a tree, looking at what changed finds what looking at everything finds."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from support.scanning import full, soon
from support.trees import Tree, signature

from repo_server.tree.live import ScanResult
from repo_server.tree.scan import Scanner, ScanOptions

FOLDERS = ["", "a", "a/b", "c"]
NAMES = [
    "service-linux-amd64-1.2.3.tar.gz",
    "service-linux-amd64-1.2.3.zip",
    "service-linux-amd64-1.2.4.tar.gz",
    "probe-linux-amd64-1.0.0.tar.gz",
    "not a release",
    ".hidden",
    "service-linux-amd64-1.2.3.tar.gz.tmp",
]
CONTENTS = [b"one", b"two", b""]
STRANGER = CryptoSigner.generate_ecdsa()
SIDECARS = {
    ".channel": [b"beta\n", b"stable\n", b"nightly\n", b""],
    ".meta": [
        b"{}",
        b"{",
        b'{"requires": [{"name": "probe", "min_version": "1.0.0"}]}',
        b'{"requires": [{"name": "service", "min_version": "1.2.3"}]}',
    ],
    ".rollout": [b'{"start": "2026-01-01T00:00:00Z"}', b"[]"],
    ".blocked": [b'{"reason": "bad"}', b""],
    ".sha256": [b"rubbish\n"],
    ".sig": [b"rubbish\n"],
}


@dataclass
class Chaos:
    """Does random things to a tree and knows which paths a watcher would report."""

    tree: Tree
    random: random.Random
    changed: list[str] = field(default_factory=list)

    def step(self) -> None:
        """Do one thing."""
        work: Callable[[], None] = self.random.choice(
            [self.add, self.add, self.add, self.write, self.write, self.sidecar, self.sidecar, self.sidecar,
             self.remove, self.remove, self.remove_all, self.move, self.move_folder, self.odd,
             self.touch, self.new_folder]
        )  # fmt: skip
        work()

    def path(self) -> str:
        folder, name = self.random.choice(FOLDERS), self.random.choice(NAMES)
        (self.tree.root / folder).mkdir(parents=True, exist_ok=True)
        return f"{folder}/{name}" if folder else name

    def touched(self, path: str) -> Path:
        self.changed.append(path)
        found = self.tree.root / path
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        return found

    def add(self) -> None:
        path, content = self.path().removesuffix(".tmp"), self.random.choice(CONTENTS)
        folder, _, name = path.rpartition("/")
        if not name.startswith(("service-", "probe-")):
            return
        for suffix in ("", ".sig", ".sha256"):
            self.touched(f"{path}{suffix}").unlink(missing_ok=True)
        self.tree.add(name, content, folder=folder)
        if self.random.random() < 0.1:
            (self.tree.root / f"{path}.sig").write_bytes(signature(name, content, STRANGER))

    def write(self) -> None:
        path = self.touched(self.path())
        path.unlink(missing_ok=True)
        path.write_bytes(self.random.choice(CONTENTS))

    def sidecar(self) -> None:
        suffix = self.random.choice(list(SIDECARS))
        path = self.touched(f"{self.path()}{suffix}")
        path.unlink(missing_ok=True)
        path.write_bytes(self.random.choice(SIDECARS[suffix]))

    def files(self) -> list[Path]:
        found = [path for path in self.tree.root.rglob("*") if path.is_symlink() or not path.is_dir()]
        kept = ("metadata", ".published", "repo.toml")
        return sorted(
            path for path in found if path.relative_to(self.tree.root).parts[0] not in kept and "keep" not in path.name
        )

    def remove(self) -> None:
        if files := self.files():
            path = self.random.choice(files)
            path.unlink()
            self.changed.append(path.relative_to(self.tree.root).as_posix())

    def remove_all(self) -> None:
        path = self.path()
        for suffix in ("", *SIDECARS):
            self.touched(f"{path}{suffix}").unlink(missing_ok=True)

    def move(self) -> None:
        if files := self.files():
            source, target = self.random.choice(files), self.touched(self.path())
            if source.exists():
                self.changed.append(source.relative_to(self.tree.root).as_posix())
                source.rename(target)

    def move_folder(self) -> None:
        folders = [folder for folder in FOLDERS[1:] if (self.tree.root / folder).is_dir()]
        if folders:
            source = self.random.choice(folders)
            target = f"moved{self.random.randrange(3)}"
            if not (self.tree.root / target).exists():
                (self.tree.root / source).rename(self.tree.root / target)
                self.changed += [source, target]

    def odd(self) -> None:
        path = self.touched(f"{self.path()}{self.random.choice(['', '.channel', '.sig'])}")
        path.unlink(missing_ok=True)
        self.random.choice([path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/etc/passwd")])()

    def touch(self) -> None:
        if files := self.files():
            path = self.random.choice(files)
            os.utime(path, follow_symlinks=False)
            self.changed.append(path.relative_to(self.tree.root).as_posix())

    def new_folder(self) -> None:
        folder = self.tree.root / self.random.choice(
            [*FOLDERS[1:], "a/b/c/d", "\u202e", "service-linux-amd64-7.0.0.zip"]
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.changed.append(folder.relative_to(self.tree.root).as_posix())


def comparable(result: ScanResult) -> tuple[object, ...]:
    problems = [(item.path, item.code, item.message, item.state) for item in result.problems]
    return sorted(map(str, result.catalogue)), result.catalogue, problems, dict(result.identities)


@pytest.mark.parametrize("seed", range(16))
def test_an_incremental_scan_finds_what_a_new_scanner_finds(tmp_path: Path, seed: int) -> None:
    """Random sequences of everything that people and tools do to a tree; after each step, both ways agree.

    Releases that nothing happens to keep the removals below half of the tree (L26 would keep them, and a new scanner
    cannot know of them). The clocks run ahead, so that nothing is arriving.
    """
    tree = Tree(tmp_path / "tree")
    for number in range(12):
        tree.add(f"ui-linux-amd64-{number}.0.0-keep.tar.gz", folder="kept")
    scanner = Scanner(tree.root, tmp_path / "state" if seed % 2 else None, ScanOptions(save_seconds=0.0))
    chaos = Chaos(tree, random.Random(seed))  # noqa: S311 -- chaos needs a seed
    now: datetime = soon()
    scanner.full(now)
    for number in range(60):
        chaos.step()
        if chaos.random.random() < 0.3:
            continue
        now += timedelta(minutes=1)
        found = scanner.update(chaos.changed, now)
        chaos.changed.clear()
        assert comparable(found) == comparable(full(tree.root, None, now)), f"seed {seed}, step {number}"
    assert comparable(scanner.full(now)) == comparable(found if not chaos.changed else full(tree.root, None, now))
    scanner.close()
    if seed % 2:
        assert comparable(full(tree.root, tmp_path / "state", now)) == comparable(full(tree.root, None, now))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "tree")
    for number in range(4):
        tree.add(f"ui-linux-amd64-{number}.0.0.tar.gz")
    tree.add(NAMES[0], folder="c")
    return tree


def test_a_folder_that_went_takes_its_releases_along_whatever_else_is_told(tree: Tree) -> None:
    scanner = Scanner(tree.root, None)
    scanner.full(soon())
    shutil.rmtree(tree.root / "c")
    assert len(scanner.update(["c"], soon()).catalogue) == 4


def test_a_look_that_a_new_folder_cuts_short_forgets_nothing(tree: Tree) -> None:
    """The removal is seen first, then the folder makes it a full scan, to which the removal is no longer new."""
    now = soon()
    scanner = Scanner(tree.root, None)
    scanner.full(now)
    for path in (tree.root / "c").iterdir():
        path.unlink()
    (tree.root / "c" / "junk").touch()
    (tree.root / "folder").mkdir()
    tree.add(NAMES[3], folder="c")
    changed = [f"c/{NAMES[0]}", "c/junk", f"c/{NAMES[3]}", "folder"]
    assert comparable(scanner.update(changed, now)) == comparable(full(tree.root, None, now))
    assert len(scanner.full(now).catalogue) == 5


def test_an_error_in_the_middle_of_a_scan_loses_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is injected where the ledger is written, an error that nobody foresaw: all is looked at again."""
    now = soon()
    scanner = Scanner(tree.root, None)
    scanner.full(now)
    for path in (tree.root / "c").iterdir():
        path.unlink()
    (tree.root / "c" / "junk").touch()
    tree.add(NAMES[3])

    def fails(*_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    with monkeypatch.context() as patch:
        patch.setattr("repo_server.tree.ledger.record", fails)
        with pytest.raises(RuntimeError, match="nobody foresaw"):
            scanner.update([f"c/{NAMES[0]}", "c/junk", NAMES[3]], now)
    assert comparable(scanner.update([], now)) == comparable(full(tree.root, None, now))


def test_a_change_in_another_root_makes_it_a_full_scan(tree: Tree, tmp_path: Path) -> None:
    now = soon()
    scanner = Scanner(tree.root, None)
    scanner.full(now)
    tree.root.rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tree.root)
    name = "probe-linux-amd64-5.0.0.tar.gz"
    tree.add(name)
    assert comparable(scanner.update(["repo"], now)) == comparable(full(tree.root, None, now))
    assert scanner.was_full
