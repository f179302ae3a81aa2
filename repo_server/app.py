"""The composition root: puts a server together from its settings, runs it, and takes it apart in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import resource
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any

import uvicorn

from repo_server.answers import Answers
from repo_server.auth import KeyFile, Keys, parse_secrets
from repo_server.conditions import Conditions
from repo_server.connections import RESERVED_DESCRIPTORS, Connections
from repo_server.eventlog import Credentials, EventRecorder
from repo_server.expiry import Expiry
from repo_server.exposition import Exposition
from repo_server.exposition import Source as FigureSource
from repo_server.feed import Feed, TreeFeed
from repo_server.figures import (
    of_catalogue,
    of_certificate,
    of_fleet,
    of_metadata,
    of_recording,
    of_traffic,
    of_workers,
)
from repo_server.files import FileSender
from repo_server.guard import Guard
from repo_server.heart import Heart
from repo_server.httpserver import HttpServer
from repo_server.listener import listening, require_tree, url_of
from repo_server.live import Snapshot
from repo_server.protocol import LimitedHttp
from repo_server.recording import NothingRecorded, Recording, StoredDevices, StoredRecords
from repo_server.routes.application import Application
from repo_server.routes.context import Context
from repo_server.scan import Scanner, ScanOptions
from repo_server.servicemanager import ServiceManager
from repo_server.settings import Settings
from repo_server.statefolder import held, prepare
from repo_server.store.database import POOL_SIZE
from repo_server.store.embedded import EmbeddedByAnother, EmbeddedPostgres
from repo_server.store.fleet import Fleet
from repo_server.store.source import GivenServer, Source
from repo_server.store.spools import gather_spools, spool_name
from repo_server.supervise import Tasks, every, first_of, regularly
from repo_server.tls import Tls
from repo_server.tokens import TOKENS_NAME, parse_tokens
from repo_server.traffic import Traffic
from repo_server.watch import WatchOptions
from repo_server.workers.channel import Channel
from repo_server.workers.crew import Launch
from repo_server.workers.link import Link, MainsDatabase, begin
from repo_server.workers.main import MainProcess

_FILE_THREADS = 16
_LOOK_SECONDS = 1.0
"""How soon a changed file (secrets, tokens) is in force, and a condition is said."""
_HAND_OVER_SECONDS = 0.2
_STOP_SECONDS = 15.0
_FIRST_LOOK_SECONDS = 5.0
_GC_THRESHOLD = 50_000

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
        return runner.run(Server(settings, guard, traffic, recording, feed, tls, say, heart).run(listener))


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
        guard, tls = _guard(settings, traffic), _tls(settings)
        server = Server(settings, guard, traffic, recording, link, tls, lambda _: link.say_ready())
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
        exposition.sources.append(_fleet_figures(recording))
    launch = _launcher(settings, listener)
    main = MainProcess(settings, feed, recording, heart, launch, exposition.figures, wall_clock)
    _on_signals(main.leave, main.reopen)
    where = url_of(settings, listener)
    try:
        return await main.run(listener, lambda: say(f"listening on {where}"))
    finally:
        if recording is not None:
            await recording.database.close()
        await feed.close()
        _log.info("stopped")


def _launcher(settings: Settings, listener: socket.socket) -> Launch:
    """Return what starts a worker: this program again, with the listening socket and its end of a channel."""

    async def launch(number: int, end: socket.socket) -> Process:
        command = [sys.executable, "-m", "repo_server", "worker"]
        options = {"channel": end.fileno(), "number": number, "log-level": settings.log_level}
        return await asyncio.create_subprocess_exec(
            *command,
            *(f"--{name}={value}" for name, value in options.items()),
            pass_fds=(end.fileno(), listener.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C in a terminal goes to the whole group; workers are told by the main process, once.
            start_new_session=True,
        )

    return launch


class Server:
    """One process that answers requests."""

    def __init__(
        self,
        settings: Settings,
        guard: Guard,
        traffic: Traffic,
        recording: Recording | None,
        feed: Feed,
        tls: Tls | None,
        say: Callable[[str], None],
        heart: Heart | None = None,
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._traffic = traffic
        self._connections = Connections(
            _most_connections(settings.max_connections), monotonic, settings.request_seconds
        )
        self._say = say
        self._feed = feed
        self._recording = recording
        self._tls = tls
        self._expiry = Expiry(settings.tree, wall_clock)
        self.conditions = _conditions(guard, traffic, recording, tls)
        self.conditions.watch("metadata_ends", self._expiry.ending)
        self._heart = heart
        if heart is not None:
            self.conditions.watch("scan_stalled", heart.symptom)
        self.exposition = self._exposition()
        self._threads = ThreadPoolExecutor(_FILE_THREADS, thread_name_prefix="file")

    async def run(self, listener: socket.socket) -> bool:
        """Serve on a listening socket until a signal comes or a part of the server fails."""
        application = Application(self._context())
        http = HttpServer(self._config(application), self._connections)
        stop = asyncio.Event()
        tasks = Tasks(on_failure=http.leave)
        _on_signals(http.leave, self._traffic.audit.reopen)
        self._traffic.audit.start()
        self._start(tasks, stop)
        if self._recording is not None:
            self._recording.start(tasks, stop, keeps=isinstance(self._feed, TreeFeed))
        announced = asyncio.create_task(self._announce(http, listener))
        try:
            # Who connects meanwhile waits in the socket; a large tree is not waited for, agents are asked to come back.
            await first_of(self._feed.looked.wait(), http.left.wait(), seconds=_FIRST_LOOK_SECONDS)
            await http.serve([listener])
        finally:
            if self._heart is not None:
                self._heart.end_serving()
            announced.cancel()
            await self._finish(tasks, stop)
        return tasks.failed is None

    def _config(self, application: Application) -> uvicorn.Config:
        settings = self._settings
        # Asking Redis takes a wait, which the short way does not have.
        short_way = application if self._traffic.shared is None else None
        config = uvicorn.Config(
            application,
            interface="asgi3",
            http=partial(LimitedHttp, connections=self._connections, short_way=short_way),  # type: ignore[arg-type]  # called like the class
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
        config.load()
        if self._tls is not None:
            config.ssl = self._tls.context()
        return config

    def _start(self, tasks: Tasks, stop: asyncio.Event) -> None:
        self._feed.start(tasks, stop)
        tasks.start("watching what can change", every(_LOOK_SECONDS, stop, self._look_around))
        tasks.start("handing audit lines over", regularly(_HAND_OVER_SECONDS, stop, self._traffic.audit.hand_over))
        if self._traffic.shared is not None:
            tasks.start("asking Redis", self._traffic.shared.run(stop))
        if self._heart is not None:
            tasks.start("telling the service manager", regularly(self._heart.pause, stop, self._heart.beat))
        tasks.start("closing idle connections", regularly(_LOOK_SECONDS, stop, self._connections.sweep))

    def _look_around(self) -> None:
        """Take up files that changed, and say what is wrong with the server."""
        self._guard.refresh()
        self._expiry.refresh()
        if self._tls is not None:
            self._tls.refresh()
        self.conditions.look(wall_clock())

    def _context(self) -> Context:
        recording = self._recording
        nothing = NothingRecorded()
        return Context(
            root=self._settings.tree,
            live=self._feed.live,
            answers=Answers(self._settings.next_check_seconds),
            guard=self._guard,
            sender=FileSender(self._threads),
            check_ins=nothing if recording is None else recording.check_ins,
            records=nothing if recording is None else StoredRecords(recording.intake),
            devices=nothing if recording is None else StoredDevices(recording.database),
            rescan=self._feed.request_rescan,
            clock=wall_clock,
            database_state=_no_database if recording is None else recording.describe,
            conditions=self.conditions,
            traffic=self._traffic,
            exposition=self.exposition,
            public_metrics=self._settings.public_metrics,
            base_url=self._settings.base_url,
            package_base_url=self._settings.package_base_url,
            x_accel=self._settings.x_accel,
        )

    def _exposition(self) -> Exposition:
        sources: list[FigureSource] = [
            lambda: of_traffic(self._traffic, self._connections),
            lambda: of_catalogue(self._feed.live, self.conditions, wall_clock),
            lambda: of_certificate(self._tls),
            lambda: of_metadata(self._expiry),
        ]
        if (recording := self._recording) is not None:
            sources.append(lambda: of_recording(recording))
            if isinstance(self._feed, TreeFeed):
                sources.append(_fleet_figures(recording))
        return Exposition(sources)

    async def _announce(self, http: HttpServer, listener: socket.socket) -> None:
        """Say that agents are served, once they are: scripts wait for this line and go on at once."""
        await http.listening.wait()
        where = url_of(self._settings, listener)
        _log.info("listening", extra={"url": where, "tree": str(self._settings.tree)})
        await self._feed.looked.wait()
        # Everything made so far lives as long as the server: the collector need not look at it again (design §9).
        # What requests leave behind has no cycles, so looking for them may be rare as well.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        self._say(f"listening on {where}")
        if self._heart is not None:
            self._heart.begin_serving()

    async def _finish(self, tasks: Tasks, stop: asyncio.Event) -> None:
        """Take everything apart, in the order in which nothing is lost."""
        stop.set()
        await tasks.finish(_STOP_SECONDS)
        if self._recording is not None:
            await self._recording.database.close()
        await self._feed.close()
        self._threads.shutdown(wait=True)
        await asyncio.to_thread(self._traffic.audit.close)
        _log.info("stopped")


def _on_signals(leave: Callable[[], None], reopen: Callable[[], None]) -> None:
    def told(number: signal.Signals) -> None:
        _log.info("%s: finishing what runs, then stopping", number.name)
        leave()

    def hung_up() -> None:
        _log.info("SIGHUP: opening the audit's files again")
        reopen()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    loop.add_signal_handler(signal.SIGHUP, hung_up)


def _most_connections(wanted: int) -> int:
    """Raise the process's limit of descriptors as far as it goes, and return how many connections fit into it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(wanted, max(hard - RESERVED_DESCRIPTORS, hard // 4))
    if most < wanted:
        _log.info("%d descriptors leave room for %d connections; see LimitNOFILE= or ulimit -n", hard, most)
    return most


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


def _fleet_figures(recording: Recording) -> FigureSource:
    """Return the figures that one process shows for all: sums over workers must not count devices several times."""
    fleet = Fleet(recording.database, monotonic)
    return lambda: of_fleet(fleet)


def _conditions(guard: Guard, traffic: Traffic, recording: Recording | None, tls: Tls | None) -> Conditions:
    """Put together what can be wrong with a server."""
    conditions = Conditions()
    conditions.watch("tokens_not_reloaded", lambda: guard.tokens.error)
    if (secrets := guard.secrets) is not None:
        conditions.watch("secrets_not_reloaded", lambda: secrets.error)
    conditions.watch("audit_not_written", lambda: traffic.audit.error)
    if (shared := traffic.shared) is not None:
        conditions.watch("shared_limits_away", lambda: shared.error)
    if tls is not None:
        conditions.watch("certificate_not_renewed", lambda: tls.error)
        conditions.watch("certificate_ends", tls.ending)
    if recording is not None:
        recording.watch(conditions)
    return conditions


def _no_database() -> dict[str, Any]:
    return {"state": "off", "since": None}
