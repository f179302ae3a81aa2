"""The composition root: puts a server together from its settings, runs it, and takes it apart in order."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from repo_server.access.auth import KeyFile, Keys, parse_secrets
from repo_server.access.guard import Guard
from repo_server.access.tokens import TOKENS_NAME, parse_tokens
from repo_server.feed import TreeFeed
from repo_server.heart import Heart
from repo_server.recording import Recording
from repo_server.server import Parts, Server, fleet_figures
from repo_server.servicemanager import ServiceManager
from repo_server.settings import Settings
from repo_server.signals import on_signals
from repo_server.statefolder import held, prepare
from repo_server.store.database import POOL_SIZE
from repo_server.store.embedded import EmbeddedByAnother, EmbeddedPostgres
from repo_server.store.source import GivenServer, Source
from repo_server.store.spools import gather_spools, spool_name
from repo_server.telemetry.eventlog import Credentials, EventRecorder
from repo_server.telemetry.exposition import Exposition
from repo_server.telemetry.figures import (
    of_workers,
)
from repo_server.traffic import Traffic
from repo_server.tree.live import Snapshot
from repo_server.tree.scan import Scanner, ScanOptions
from repo_server.tree.watch import WatchOptions
from repo_server.web.listener import listening, require_tree, url_of
from repo_server.web.tls import Tls
from repo_server.workers.channel import Channel
from repo_server.workers.launch import launcher
from repo_server.workers.link import Link, MainsDatabase, begin
from repo_server.workers.main import MainProcess

_log = logging.getLogger(__name__)


def wall_clock() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


def serve(settings: Settings, manager: ServiceManager, say: Callable[[str], None]) -> bool:
    """Run a server until it is told to stop; return whether it ended as it should.

    ``say`` prints a line for people. Raise ``Unsafe``, ``StartError``, ``StateError``, ``CredentialsInvalid``,
    ``UrlInvalid`` or ``OSError`` when it cannot start.
    """
    require_tree(settings.tree)
    prepare(settings.state)
    traffic = Traffic.make(settings, wall_clock, random.random)
    guard = _guard(settings, traffic)
    tls = _tls(settings)
    source = _source(settings)
    with (
        held(settings.state),
        listening(settings, manager) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        if settings.workers > 1:
            return runner.run(_run_main(settings, source, manager, listener, say))
        gather_spools(settings.state, 1)
        events = _events(settings, guard.secrets, guard.tokens)
        feed = _tree_feed(settings, [events.follow])
        recording = None if source is None else _recording(settings, source, events=events)
        heart = Heart(manager, settings.tree, feed.watcher.busy_seconds)
        parts = Parts(settings, guard, traffic, recording, tls)
        return runner.run(Server(parts, feed, say, wall_clock, heart).run(listener))


def work(descriptor: int, number: int) -> bool:
    """Run one of several workers on the channel that the main process opened; return whether it ended as it should.

    Raise ``MainProcessGone``, and as ``serve`` does.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        channel = runner.run(Channel.over(socket.socket(fileno=descriptor)))
        begun = runner.run(begin(channel))
        settings = begun.settings
        traffic = Traffic.make(settings, wall_clock, random.random, number)
        source = _workers_source(settings)
        link = Link(channel, None if source is None else MainsDatabase(source))
        recording = None if link.database is None else _recording(settings, link.database, number)
        parts = Parts(settings, _guard(settings, traffic), traffic, recording, _tls(settings))
        server = Server(parts, link, lambda _: link.say_ready(), wall_clock)
        server.conditions.elsewhere = lambda: link.conditions
        server.exposition.gather, link.figures = link.gather, server.exposition.figures
        with socket.socket(fileno=begun.listener) as listener:
            return runner.run(server.run(listener))


async def _run_main(
    settings: Settings,
    source: Source | None,
    manager: ServiceManager,
    listener: socket.socket,
    say: Callable[[str], None],
) -> bool:
    """Run the main process of several workers."""
    gather_spools(settings.state, settings.workers)

    def follow(snapshot: Snapshot) -> None:
        main.follow(snapshot)

    events = _events(settings, *_key_files(settings), refresh=True)
    feed = _tree_feed(settings, [follow, events.follow])
    recording = None if source is None else _recording(settings, source, events=events)
    heart = Heart(manager, settings.tree, feed.watcher.busy_seconds)
    exposition = Exposition([lambda: of_workers(main.ready, main.restarts)])
    if recording is not None:
        exposition.sources.append(fleet_figures(recording))
    launch = launcher(listener, settings.log_level)
    main = MainProcess(settings, feed, recording, heart, launch, exposition.figures, wall_clock)
    on_signals(main.leave, main.reopen)
    where = url_of(settings, listener)
    try:
        return await main.run(listener, lambda: say(f"listening on {where}"))
    finally:
        if recording is not None:
            await recording.database.close()
        await feed.close()
        _log.info("stopped")


def _guard(settings: Settings, traffic: Traffic) -> Guard:
    secrets, tokens = _key_files(settings)
    return Guard(secrets, tokens, traffic.limits, settings.public_tree)


def _key_files(settings: Settings) -> tuple[KeyFile | None, KeyFile]:
    secrets = None
    if settings.secrets is not None:
        secrets = KeyFile(settings.secrets, parse_secrets)
        secrets.load()
    tokens = KeyFile(settings.state / TOKENS_NAME, parse_tokens, optional=True)
    tokens.load()
    return secrets, tokens


def _tls(settings: Settings) -> Tls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    tls = Tls(settings.tls_cert, settings.tls_key, wall_clock)
    tls.load()
    return tls


def _tree_feed(settings: Settings, followers: Collection[Callable[[Snapshot], None]] = ()) -> TreeFeed:
    scanner = Scanner(settings.tree, settings.state, ScanOptions())
    return TreeFeed.of(scanner, WatchOptions(poll=settings.poll), wall_clock, followers)


def _source(settings: Settings) -> Source | None:
    if settings.no_database:
        return None
    if settings.database_url is not None:
        return GivenServer.parse(settings.database_url)
    return EmbeddedPostgres(settings.state, (settings.workers + 2) * POOL_SIZE)


def _workers_source(settings: Settings) -> Source | None:
    """Return how a worker reaches the database that the main process keeps."""
    source = _source(settings)
    return EmbeddedByAnother(settings.state) if isinstance(source, EmbeddedPostgres) else source


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.new_event_loop


def _events(settings: Settings, secrets: KeyFile | None, tokens: KeyFile, *, refresh: bool = False) -> EventRecorder:
    """Return what follows tree and credentials, in the one process that looks at the tree.

    ``refresh``: nobody else in this process looks whether the files have changed.
    """

    def credential(kind: str, file: KeyFile) -> Credentials:
        def read() -> Keys:
            if refresh:
                file.refresh()
            return file.keys

        return kind, file.path, read

    credentials = [credential("token", tokens), *([] if secrets is None else [credential("secret", secrets)])]
    server = f"{socket.gethostname()}:{settings.state.resolve()}"
    return EventRecorder(settings.tree, server, wall_clock, tuple(credentials))


def _recording(
    settings: Settings, source: Source, worker: int | None = None, events: EventRecorder | None = None
) -> Recording:
    return Recording.make(
        source,
        settings.state / spool_name(worker or 0),
        wall_clock,
        spool_megabytes=settings.spool_megabytes / settings.workers,
        keep_months=settings.log_retention_months,
        migrates=worker is None,
        events=events,
    )
