"""The watcher, with the real watchfiles on real files: fast when it is told, certain when it is not (design §2)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from support.scanning import codes, offered
from support.trees import Tree

from repo_server.core.model import Channel
from repo_server.tree import ledger
from repo_server.tree.listen import Listener, folders_below
from repo_server.tree.live import Live, ScanResult, Snapshot
from repo_server.tree.scan import Scanner, ScanOptions
from repo_server.tree.treeio import write_atomic
from repo_server.tree.watch import Watcher, WatchOptions

NAME = "service-linux-amd64-1.2.3.tar.gz"
GENEROUS = 60.0
"""Seconds until a test gives up waiting; nothing takes a hundredth of it."""


@dataclass
class Running:
    """A watcher at work."""

    tree: Tree
    live: Live
    watcher: Watcher
    scanner: Scanner
    stop: asyncio.Event
    snapshots: list[Snapshot] = field(default_factory=list)

    @property
    def result(self) -> ScanResult:
        return self.live.current.result

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        await wait_for(lambda: self.live.ready and condition())


async def wait_for(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(GENEROUS):
        while not condition():  # noqa: ASYNC110 -- files and threads set no event
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def watching(tree: Tree, state: Path | None = None, **options: Any) -> AsyncIterator[Running]:
    live, stop = Live(), asyncio.Event()
    scanner = Scanner(tree.root, state, ScanOptions(settle_seconds=0.2))
    snapshots: list[Snapshot] = []
    watcher = Watcher(scanner, live, WatchOptions(**options), lambda: datetime.now(UTC), [snapshots.append])
    task = asyncio.create_task(watcher.run(stop))
    running = Running(tree, live, watcher, scanner, stop, snapshots)
    try:
        await running.until(lambda: True)
        yield running
    finally:
        stop.set()
        await asyncio.wait_for(task, GENEROUS)
        scanner.close()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make a tree in which nothing but the listener leads to a second look: full scans are a day apart."""
    tree = Tree(tmp_path / "tree")
    tree.add(NAME, channel="beta", folder="a/b")
    (tree.root / "repo.toml").write_text("rescan_seconds = 86400\n")
    return tree


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 2 * GENEROUS))


async def heard(running: Running) -> None:
    """Wait until the listener has reported that it listens, so that what follows is told by it and by nothing else."""
    marker = running.tree.root / "probe-linux-amd64-0.0.1.zip"
    async with asyncio.timeout(GENEROUS):
        while marker.name not in codes(running.result):
            marker.write_bytes(b"")
            await asyncio.sleep(0.05)
    marker.unlink()
    await running.until(lambda: marker.name not in codes(running.result))


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


def test_names_that_are_not_utf8_stop_the_library_but_not_the_watching(
    tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    """L9: watchfiles gives up at such a name; the listener starts again."""

    async def work() -> None:
        async with watching(tree) as running:
            await heard(running)
            for number in range(3):
                with open(os.path.join(os.fsencode(tree.root), b"a", b"\xff%d" % number), "wb"):  # noqa: ASYNC230, PTH118, PTH123 -- names of bytes
                    pass
                await running.until(lambda number=number: rf"a/\xff{number}" in codes(running.result))
            tree.add("ui-linux-amd64-1.0.0.tar.gz", folder="a")
            await running.until(lambda: "a/ui-linux-amd64-1.0.0.tar.gz" in offered(running.result))

    with caplog.at_level(logging.WARNING):
        run(work)
    assert "starts again" in caplog.text


def test_errors_in_the_listener_that_do_not_end_are_logged_once_and_said_until_they_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody touches an undecodable name again and again, or the system has no watches left."""
    broken = threading.Event()
    broken.set()

    def stumbling(*paths: object, **options: Any) -> Iterator[set[Any]]:
        for changes in watchfiles.watch(*paths, **options):  # type: ignore[arg-type]
            if broken.is_set():
                raise RuntimeError("the library stumbled")
            yield changes

    listener = Listener(tmp_path, lambda _: None, source=stumbling, steady_seconds=0.5)
    listener.start()
    try:
        run(lambda: wait_for(lambda: listener.trouble is not None))
        assert "the library stumbled" in str(listener.trouble)
        broken.clear()
        run(lambda: wait_for(lambda: listener.trouble is None))
    finally:
        listener.stop()
    assert caplog.text.count("starts again") == 1


def test_an_error_in_the_listener_is_logged_and_it_starts_again(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    """The fault is injected into the port: it fails at its start, later in its course, and then works."""
    attempts: list[int] = []

    def stumbling(*paths: object, **options: Any) -> Iterator[set[Any]]:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError(28, "inotify watch limit reached")
        for number, changes in enumerate(watchfiles.watch(*paths, **options)):  # type: ignore[arg-type]
            if len(attempts) == 2 and number == 1:
                raise RuntimeError("the library stumbled")
            yield changes

    async def work() -> None:
        async with watching(tree, source=stumbling) as running:
            await running.until(lambda: len(attempts) == 3)
            await heard(running)
            tree.add("ui-linux-amd64-1.0.0.tar.gz")
            await running.until(lambda: len(offered(running.result)) == 2)

    with caplog.at_level(logging.WARNING):
        run(work)
    assert "inotify watch limit reached" in caplog.text
    assert "the library stumbled" in caplog.text


def silent(*_: object, stop_event: Any, **__: object) -> Iterator[set[Any]]:
    """Tell nothing, like a network file system."""
    while not stop_event.wait(0.1):
        yield set()


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


def test_a_scan_that_fails_is_logged_and_tried_again(
    tree: Tree, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is injected where the ledger is read: an error that nobody foresaw, in the middle of a scan."""
    real, calls = ledger.identities, []

    def stumbling(*arguments: Any) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("nobody foresaw this")
        return real(*arguments)

    monkeypatch.setattr(ledger, "identities", stumbling)

    async def work() -> None:
        async with watching(tree) as running:
            await running.until(lambda: len(calls) > 2)
            await heard(running)
            assert list(offered(running.result)) == [f"a/b/{NAME}"]

    with caplog.at_level(logging.ERROR):
        run(work)
    assert "nobody foresaw this" in caplog.text


def test_a_follower_that_fails_disturbs_nobody(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: Snapshot) -> None:
        raise RuntimeError("the follower stumbled")

    async def work() -> None:
        live, stop, seen = Live(), asyncio.Event(), []
        scanner = Scanner(tree.root, None)
        watcher = Watcher(scanner, live, WatchOptions(), lambda: datetime.now(UTC), [fails, seen.append])
        task = asyncio.create_task(watcher.run(stop))
        await wait_for(lambda: seen)
        stop.set()
        await task
        assert live.ready

    run(work)
    assert "the follower stumbled" in caplog.text


def test_stopping_does_not_wait_for_a_long_hashing(tree: Tree, tmp_path: Path) -> None:
    name = "ui-linux-amd64-1.0.0.tar.gz"
    (tree.root / "repo.toml").write_text(f"[limits]\nmax_file_bytes = {2**40}\n")
    with (tree.root / name).open("wb") as file:
        file.truncate(300 * 2**30)
    (tree.root / f"{name}.sha256").write_text(f"{'0' * 64}  {name}\n")
    (tree.root / f"{name}.sig").write_bytes(tree.sig(name, b""))

    async def work() -> None:
        scanner = Scanner(tree.root, tmp_path / "state")
        stop = asyncio.Event()
        watcher = Watcher(scanner, Live(), WatchOptions(), lambda: datetime.now(UTC))
        task = asyncio.create_task(watcher.run(stop))
        await wait_for(scanner._digests.running)
        stop.set()
        started = time.monotonic()
        await task
        assert time.monotonic() - started < GENEROUS

    run(work)
