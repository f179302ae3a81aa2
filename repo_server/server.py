"""A process that answers requests: its parts at work, from the first look at the tree to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any

import uvicorn

from repo_server.access.guard import Guard
from repo_server.answers import Answers
from repo_server.credentials import Credentials
from repo_server.feed import Feed, TreeFeed
from repo_server.heart import Heart
from repo_server.recording import NothingRecorded, Recording, StoredDevices, StoredRecords
from repo_server.routes.application import Application
from repo_server.routes.context import Context
from repo_server.settings import Settings
from repo_server.signals import on_signals
from repo_server.store.fleet import Fleet
from repo_server.supervise import Tasks, every, regularly
from repo_server.telemetry.conditions import Conditions
from repo_server.telemetry.exposition import Exposition
from repo_server.telemetry.exposition import Source as FigureSource
from repo_server.telemetry.figures import (
    of_catalogue,
    of_certificate,
    of_fleet,
    of_metadata,
    of_recording,
    of_traffic,
)
from repo_server.traffic import Traffic
from repo_server.tree.expiry import Expiry
from repo_server.waiting import first_of
from repo_server.web.connections import RESERVED_DESCRIPTORS, Connections
from repo_server.web.files import FileSender
from repo_server.web.httpserver import HttpServer
from repo_server.web.listener import url_of
from repo_server.web.protocol import LimitedHttp

_FILE_THREADS = 16
_LOOK_SECONDS = 1.0
"""How soon a changed file (secrets, tokens) is in force, and a condition is said."""
_HAND_OVER_SECONDS = 0.2
_STOP_SECONDS = 15.0
_FIRST_LOOK_SECONDS = 5.0
_GC_THRESHOLD = 50_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process that answers is made of, besides its catalogue."""

    settings: Settings
    credentials: Credentials
    traffic: Traffic
    recording: Recording | None


class Server:
    """One process that answers requests."""

    def __init__(
        self,
        parts: Parts,
        feed: Feed,
        say: Callable[[str], None],
        clock: Callable[[], datetime],
        heart: Heart | None = None,
    ) -> None:
        """``say`` prints a line for people; ``heart`` is of the process that the service manager watches."""
        settings, credentials = parts.settings, parts.credentials
        self._settings = settings
        self._credentials = credentials
        self._guard = Guard(credentials.secrets, credentials.tokens, parts.traffic.limits, settings.public_tree)
        self._traffic = parts.traffic
        self._clock = clock
        self._connections = Connections(
            _most_connections(settings.max_connections), monotonic, settings.request_seconds
        )
        self._say = say
        self._feed = feed
        self._recording = parts.recording
        self._expiry = Expiry(settings.tree, self._clock)
        self.conditions = _conditions(parts)
        self.conditions.watch("metadata_ends", self._expiry.ending)
        if isinstance(feed, TreeFeed):
            feed.watch(self.conditions)
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
        on_signals(http.leave, self.read_again)
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

    def read_again(self) -> None:
        """Open the audit's file again, and have secrets, tokens and certificate read within a second (SIGHUP)."""
        self._traffic.audit.reopen()
        self._credentials.read_again()

    def _config(self, application: Application) -> uvicorn.Config:
        settings = self._settings
        config = uvicorn.Config(
            application,
            interface="asgi3",
            http=partial(LimitedHttp, connections=self._connections, short_way=application),  # type: ignore[arg-type]  # called like the class
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
        if self._credentials.tls is not None:
            config.ssl = self._credentials.tls.context()
        return config

    def _start(self, tasks: Tasks, stop: asyncio.Event) -> None:
        self._feed.start(tasks, stop)
        tasks.start("watching what can change", every(_LOOK_SECONDS, stop, self._look_around))
        # By itself: the tree's disk may hang, and a revoked secret must not stay in force for that.
        tasks.start("looking when the metadata ends", every(_LOOK_SECONDS, stop, self._expiry.refresh))
        tasks.start("handing audit lines over", regularly(_HAND_OVER_SECONDS, stop, self._traffic.audit.hand_over))
        if self._traffic.shared is not None:
            tasks.start("asking Redis", self._traffic.shared.run(stop))
        if self._heart is not None:
            tasks.start("telling the service manager", regularly(self._heart.pause, stop, self._heart.beat))
        tasks.start("closing idle connections", regularly(_LOOK_SECONDS, stop, self._connections.sweep))

    def _look_around(self) -> None:
        """Take up files that changed, and say what is wrong with the server."""
        self._credentials.refresh()
        self.conditions.look(self._clock())

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
            clock=self._clock,
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
            lambda: of_catalogue(self._feed.live, self.conditions, self._clock),
            lambda: of_certificate(self._credentials.tls),
            lambda: of_metadata(self._expiry),
        ]
        if (recording := self._recording) is not None:
            sources.append(lambda: of_recording(recording))
            if isinstance(self._feed, TreeFeed):
                sources.append(fleet_figures(recording))
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
        if self._heart is not None:
            # Before the line: nobody may be there any more to read it.
            self._heart.begin_serving()
        self._say(f"listening on {where}")

    async def _finish(self, tasks: Tasks, stop: asyncio.Event) -> None:
        """Take everything apart, in the order in which nothing is lost."""
        stop.set()
        # From the last to the first; what one of them says keeps none of the others from being closed.
        async with contextlib.AsyncExitStack() as rest:
            rest.push_async_callback(asyncio.to_thread, self._traffic.audit.close)
            rest.callback(self._threads.shutdown, wait=True)
            rest.push_async_callback(self._feed.close)
            if self._recording is not None:
                rest.push_async_callback(self._recording.database.close)
            await tasks.finish(_STOP_SECONDS)
        _log.info("stopped")


def _most_connections(wanted: int) -> int:
    """Raise the process's limit of descriptors as far as it goes, and return how many connections fit into it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(wanted, max(hard - RESERVED_DESCRIPTORS, hard // 4))
    if most < wanted:
        _log.info("%d descriptors leave room for %d connections; see LimitNOFILE= or ulimit -n", hard, most)
    return most


def fleet_figures(recording: Recording) -> FigureSource:
    """Return the figures that one process shows for all: sums over workers must not count devices several times."""
    fleet = Fleet(recording.database, monotonic)
    return lambda: of_fleet(fleet)


def _conditions(parts: Parts) -> Conditions:
    """Put together what can be wrong with a server."""
    credentials, traffic = parts.credentials, parts.traffic
    conditions = Conditions()
    conditions.watch("tokens_not_reloaded", lambda: credentials.tokens.error)
    if (secrets := credentials.secrets) is not None:
        conditions.watch("secrets_not_reloaded", lambda: secrets.error)
    conditions.watch("audit_not_written", lambda: traffic.audit.error)
    if (shared := traffic.shared) is not None:
        conditions.watch("shared_limits_away", lambda: shared.error)
    if (tls := credentials.tls) is not None:
        conditions.watch("certificate_not_renewed", lambda: tls.error)
        conditions.watch("certificate_ends", tls.ending)
    if parts.recording is not None:
        parts.recording.watch(conditions)
    return conditions


def _no_database() -> dict[str, Any]:
    return {"state": "off", "since": None}
