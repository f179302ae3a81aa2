"""The composition root: puts a server together from its settings, runs it, and takes it apart in order."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from repo_server.access.auth import KeyFile
from repo_server.credentials import Credentials
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
from repo_server.telemetry.eventlog import Credentials as FollowedKeys
from repo_server.telemetry.eventlog import EventRecorder
from repo_server.telemetry.exposition import Exposition
from repo_server.telemetry.figures import (
    of_workers,
)
from repo_server.traffic import Traffic
from repo_server.tree.live import Snapshot
from repo_server.tree.scan import Scanner, ScanOptions
from repo_server.tree.watch import WatchOptions
from repo_server.web.listener import listening, require_tree, url_of
from repo_server.workers.channel import Channel
from repo_server.workers.crew import Launch
from repo_server.workers.launch import launcher
from repo_server.workers.link import Link, MainsDatabase, begin
from repo_server.workers.main import MainProcess
from repo_server.workers.outliving import outliving

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
    credentials = Credentials.of(settings, wall_clock)
    credentials.load()
    source = _source(settings)
    with (
        held(settings.state),
        outliving(settings.state) as kept,
        listening(settings, manager) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        if settings.workers > 1:
            launch = launcher(listener, kept, settings.log_level)
            return runner.run(_run_main(settings, credentials, source, manager, listener, launch, say))
        gather_spools(settings.state, 1)
        events = _events(settings, credentials)
        feed = _tree_feed(settings, [events.follow])
        recording = None if source is None else _recording(settings, source, events=events)
        heart = Heart(manager, settings.tree, feed.watcher.busy_seconds)
        traffic = Traffic.make(settings, wall_clock, random.random)
        parts = Parts(settings, credentials, traffic, recording)
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
        credentials = Credentials.of(settings, wall_clock)
        credentials.take_over(begun.last_good, settings)
        server = Server(Parts(settings, credentials, traffic, recording), link, lambda _: link.say_ready(), wall_clock)
        link.read_again = server.read_again
        server.conditions.elsewhere = lambda: link.conditions
        server.exposition.gather, link.figures = link.gather, server.exposition.figures
        with socket.socket(fileno=begun.listener) as listener:
            return runner.run(server.run(listener))


async def _run_main(
    settings: Settings,
    credentials: Credentials,
    source: Source | None,
    manager: ServiceManager,
    listener: socket.socket,
    launch: Launch,
    say: Callable[[str], None],
) -> bool:
    """Run the main process of several workers."""
    gather_spools(settings.state, settings.workers)

    def follow(snapshot: Snapshot) -> None:
        main.follow(snapshot)

    events = _events(settings, credentials)
    feed = _tree_feed(settings, [follow, events.follow])
    recording = None if source is None else _recording(settings, source, events=events)
    heart = Heart(manager, settings.tree, feed.watcher.busy_seconds)
    exposition = Exposition([lambda: of_workers(main.ready, main.restarts)])
    if recording is not None:
        exposition.sources.append(fleet_figures(recording))
    main = MainProcess(settings, feed, recording, heart, launch, exposition.figures, credentials, wall_clock)
    on_signals(main.leave, main.read_again)
    where = url_of(settings, listener)
    try:
        return await main.run(listener, lambda: say(f"listening on {where}"))
    finally:
        if recording is not None:
            await recording.database.close()
        await feed.close()
        _log.info("stopped")


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


def _events(settings: Settings, credentials: Credentials) -> EventRecorder:
    """Return what follows tree and credentials, in the one process that looks at the tree."""

    def followed(kind: str, file: KeyFile) -> FollowedKeys:
        return kind, file.path, lambda: file.keys

    files = [followed("token", credentials.tokens)]
    if credentials.secrets is not None:
        files.append(followed("secret", credentials.secrets))
    server = f"{socket.gethostname()}:{settings.state.resolve()}"
    return EventRecorder(settings.tree, server, wall_clock, tuple(files))


def _recording(
    settings: Settings, source: Source, worker: int | None = None, events: EventRecorder | None = None
) -> Recording:
    return Recording.make(
        source,
        settings.state / spool_name(worker or 0),
        wall_clock,
        spool_megabytes=settings.spool_megabytes / settings.workers,
        keep_months=settings.log_retention_months,
        device_days=settings.device_retention_days or None,
        migrates=worker is None,
        events=events,
    )
