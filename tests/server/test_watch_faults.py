"""The watcher when something fails: it goes on, says it once, and nobody else is disturbed (EH-SRV)."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from support.scanning import codes, offered
from support.trees import Tree
from support.watching import GENEROUS, NAME, heard, run, still_tree, wait_for, watching

from repo_server.tree import ledger
from repo_server.tree.listen import Listener
from repo_server.tree.live import Live, Snapshot
from repo_server.tree.scan import Scanner
from repo_server.tree.watch import Watcher, WatchOptions


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return still_tree(tmp_path / "tree")


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
