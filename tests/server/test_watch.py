"""The watcher, with the real watchfiles on real files: fast when it is told, certain when it is not (design §2)."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path

import pytest
from support.scanning import codes, offered
from support.trees import Tree
from support.watching import GENEROUS, NAME, heard, run, silent, still_tree, watching

from repo_server.core.model import Channel
from repo_server.tree.listen import Listener, folders_below
from repo_server.tree.treeio import write_atomic


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return still_tree(tmp_path / "tree")


def test_a_promotion_reaches_the_live_catalogue(tree: Tree) -> None:
    """FR-SRV-003: written as repotool writes it."""

    async def work() -> None:
        async with watching(tree) as running:
            await heard(running)
            path = tree.root / "a" / "b" / f"{NAME}.channel"
            temporary = path.with_name(".tmp-x")
            temporary.write_text("stable\n")
            temporary.rename(path)
            await running.until(lambda: offered(running.result)[f"a/b/{NAME}"].channel is Channel.STABLE)
            assert running.snapshots[-1].generation == running.live.current.generation > 1

    run(work)


def test_new_and_nested_and_moved_and_removed_folders_are_followed(tree: Tree) -> None:
    async def work() -> None:
        async with watching(tree) as running:
            await heard(running)
            tree.add("ui-linux-amd64-1.0.0.tar.gz", folder="x/y/z")
            tree.add("ui-linux-amd64-1.0.1.tar.gz", folder="x/y/z")
            tree.add("ui-linux-amd64-1.0.2.tar.gz", folder="x")
            await running.until(lambda: len(offered(running.result)) == 4)
            (tree.root / "x" / "y").rename(tree.root / "moved")
            await running.until(lambda: "moved/z/ui-linux-amd64-1.0.0.tar.gz" in offered(running.result))
            tree.add("ui-linux-amd64-1.0.3.tar.gz", folder="moved/z")
            await running.until(lambda: "moved/z/ui-linux-amd64-1.0.3.tar.gz" in offered(running.result))
            shutil.rmtree(tree.root / "a")
            await running.until(lambda: f"a/b/{NAME}" not in offered(running.result))

    run(work)


def test_links_are_not_followed_out_of_the_tree_and_odd_names_stop_nothing(
    tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """L9, L29: neither a link to half of the disk nor a folder's name costs the watch."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree.root / "link").symlink_to(outside)
    (tree.root / os.fsdecode(b"not-\xff")).mkdir()
    below = {Path(folder).relative_to(tree.root).as_posix() for folder in folders_below(tree.root)}
    assert below == {".", "a", "a/b", "metadata"}

    async def work() -> None:
        async with watching(tree) as running:
            await heard(running)
            before = len(running.snapshots)
            (outside / os.fsdecode(b"\xfe")).write_bytes(b"")
            tree.add("ui-linux-amd64-1.0.0.tar.gz", folder="a")
            await running.until(lambda: len(offered(running.result)) == 2)
            assert len(running.snapshots) > before

    run(work)
    assert "watching" not in caplog.text


def test_a_root_that_is_named_from_the_working_directory_is_told_as_any_other(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.root.parent)
    told: set[str] = set()
    listener = Listener(Path("tree"), lambda paths: told.update(paths or ()))
    listener.start()
    try:

        async def work() -> None:
            async with asyncio.timeout(GENEROUS):
                while "a/b/x" not in told:
                    (tree.root / "a" / "b" / "x").write_bytes(b"")
                    await asyncio.sleep(0.05)

        run(work)
    finally:
        listener.stop()
    assert told <= {"a/b/x", "a/b"}


def test_another_folder_in_place_of_the_root_is_watched_from_then_on(tree: Tree, tmp_path: Path) -> None:
    """A mirror that is switched over by renaming folders."""
    other = Tree(tmp_path / "other", tree.release_key, tree.root_key, tree.online_key)
    for number in range(3):
        other.add(f"ui-linux-amd64-1.0.{number}.tar.gz")
    tree.add("ui-linux-amd64-1.0.0.tar.gz")

    async def work() -> None:
        async with watching(tree, follow_up_seconds=86400) as running:
            await heard(running)
            tree.root.rename(tmp_path / "old")
            other.root.rename(tree.root)
            await running.until(lambda: "ui-linux-amd64-1.0.2.tar.gz" in offered(running.result))
            tree.add("probe-linux-amd64-1.0.0.tar.gz")
            await running.until(lambda: "probe-linux-amd64-1.0.0.tar.gz" in offered(running.result))

    run(work)


def test_a_root_that_vanishes_and_returns_is_watched_again(tree: Tree, tmp_path: Path) -> None:
    async def work() -> None:
        async with watching(tree) as running:
            await heard(running)
            tree.root.rename(tmp_path / "away")
            await running.until(lambda: codes(running.result).get("") == "tree_unreadable")
            assert f"a/b/{NAME}" in offered(running.result)
            (tmp_path / "away").rename(tree.root)
            await running.until(lambda: codes(running.result) == {})
            tree.add("ui-linux-amd64-1.0.0.tar.gz", folder="a/b")
            await running.until(lambda: len(offered(running.result)) == 2)

    run(work)


def test_a_burst_of_thousands_of_files_is_followed_to_its_end(tree: Tree) -> None:
    async def work() -> None:
        async with watching(tree) as running:
            await heard(running)
            folder = tree.root / "burst"
            folder.mkdir()
            for number in range(4000):
                (folder / f"service-linux-amd64-9.0.{number}.bin").write_bytes(b"")
            tree.add("ui-linux-amd64-1.0.0.tar.gz", folder="burst")
            await running.until(lambda: len(running.result.problems) == 4000 and len(offered(running.result)) == 2)

    run(work)


def test_without_any_event_the_periodic_scan_finds_what_changed(tree: Tree) -> None:
    """L30: every ``rescan_seconds`` of the catalogue in force."""
    (tree.root / "repo.toml").write_text("rescan_seconds = 1\n")

    async def work() -> None:
        async with watching(tree, source=silent) as running:
            for number in range(3):
                name = f"ui-linux-amd64-1.0.{number}.tar.gz"
                tree.add(name)
                await running.until(lambda name=name: name in offered(running.result))

    run(work)


def test_polling_sees_changes_without_events_from_the_system(tree: Tree) -> None:
    """``--poll``: the real polling of the library, which compares whole seconds, as rsync does (L19)."""

    async def work() -> None:
        async with watching(tree, poll=True, poll_seconds=0.05) as running:
            await heard(running)
            write_atomic(tree.root / "a" / "b" / f"{NAME}.channel", b"stable\n")
            await running.until(lambda: offered(running.result)[f"a/b/{NAME}"].channel is Channel.STABLE)

    run(work)


def test_a_requested_rescan_happens_without_an_event(tree: Tree) -> None:
    """L25: the file server asks for it when a file is not what the catalogue says."""

    async def work() -> None:
        async with watching(tree, source=silent) as running:
            await asyncio.sleep(0.3)  # the listener has said that it listens
            (tree.root / "a" / "b" / NAME).write_bytes(b"other")
            running.watcher.request_rescan(f"a/b/{NAME}")
            await running.until(lambda: f"a/b/{NAME}" not in offered(running.result))

    run(work)


def test_after_a_new_folder_there_is_another_look_for_what_was_not_told(tree: Tree) -> None:
    """A folder is watched only after it was made, and what came into it before that is told by nobody."""

    async def work() -> None:
        async with watching(tree, source=silent) as running:
            await asyncio.sleep(0.3)  # the listener has said that it listens
            (tree.root / "new").mkdir()
            (tree.root / "new" / "junk").touch()
            running.watcher.request_rescan("new")
            await running.until(lambda: "new/junk" in codes(running.result))
            tree.add("ui-linux-amd64-1.0.0.tar.gz", folder="new")
            await running.until(lambda: len(offered(running.result)) == 2)

    run(work)


def test_a_file_that_arrives_slowly_is_offered_when_it_is_complete_and_never_before(tree: Tree) -> None:
    """L24: with the real clock; the last look comes by itself."""

    async def work() -> None:
        async with watching(tree) as running:
            await heard(running)
            name = "ui-linux-amd64-1.0.0.tar.gz"
            content = b"0123456789"
            tree.add(name, content)
            (tree.root / name).unlink()
            await running.until(lambda: name not in offered(running.result))
            for number in range(1, 10):
                with (tree.root / name).open("ab") as file:
                    file.write(content[number - 1 : number])
                await asyncio.sleep(0.03)
                assert name not in offered(running.result)
            with (tree.root / name).open("ab") as file:
                file.write(content[9:])
            await running.until(lambda: name in offered(running.result))

    run(work)


def test_a_mismatch_becomes_a_problem_by_itself(tree: Tree) -> None:
    """L24: nothing changes any more, and still the state does."""

    async def work() -> None:
        async with watching(tree) as running:
            await heard(running)
            name = "ui-linux-amd64-1.0.0.tar.gz"
            tree.add(name).write_bytes(b"wrong")
            await running.until(lambda: codes(running.result).get(name) == "digest_mismatch")

    run(work)


def test_what_appears_and_clears_is_in_the_log_with_its_fields(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    """L8, promise 3."""

    async def work() -> None:
        async with watching(tree) as running:
            await heard(running)
            path = tree.root / "a" / "b" / f"{NAME}.channel"
            path.write_text("nightly\n")
            await running.until(lambda: codes(running.result) == {f"a/b/{NAME}": "unknown_channel"})
            path.write_text("stable\n")
            await running.until(lambda: codes(running.result) == {})
            path.write_text("alpha\n")
            await running.until(lambda: offered(running.result)[f"a/b/{NAME}"].channel is Channel.ALPHA)
            path.with_name(f"{NAME}.blocked").write_text('{"reason": "bad"}')
            await running.until(lambda: not offered(running.result))

    with caplog.at_level(logging.INFO, "repo_server"):
        run(work)
    events = [record.__dict__.get("event") for record in caplog.records if NAME in str(record.__dict__.get("path"))]
    problems = {"problem_appeared", "problem_cleared"}
    assert problems | {"release_gone", "release_appeared", "release_promoted", "release_recalled"} <= set(events)
    appeared = next(record for record in caplog.records if record.__dict__.get("event") == "problem_appeared")
    assert appeared.levelno == logging.WARNING
    assert appeared.__dict__["code"] == "unknown_channel"
