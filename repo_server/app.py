"""The composition root: puts a server together from its settings, runs it, and takes it apart in order.

::

    StartError                 the message says what to do
    ├── AddressUnusable        the port is taken, or the address is not this machine's (exit code 1)
    ├── TreeUnusable           the tree is missing or cannot be read (exit code 1)
    └── TlsUnusable            certificate or key cannot be used (exit code 2)
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any

import uvicorn

from repo_server.answers import Answers, channel_of
from repo_server.audit import Audit
from repo_server.auth import KeyFile, parse_secrets
from repo_server.conditions import Conditions
from repo_server.connections import RESERVED_DESCRIPTORS, Connections
from repo_server.exposition import Exposition
from repo_server.figures import of_catalogue, of_traffic
from repo_server.files import FileSender
from repo_server.guard import Guard
from repo_server.live import Live
from repo_server.protocol import LimitedHttp
from repo_server.recording import NothingRecorded, Recording, StoredDevices, StoredRecords
from repo_server.routes.application import Application
from repo_server.routes.context import Context
from repo_server.scan import Scanner, ScanOptions
from repo_server.settings import Settings
from repo_server.statefolder import held, prepare
from repo_server.store.devices import DeviceReader
from repo_server.store.embedded import EmbeddedPostgres
from repo_server.store.source import GivenServer, Source
from repo_server.supervise import Tasks, every, regularly
from repo_server.tokens import TOKENS_NAME, parse_tokens
from repo_server.traffic import Traffic
from repo_server.watch import Watcher, WatchOptions

_BACKLOG = 2048
_FILE_THREADS = 16
_LOOK_SECONDS = 1.0
"""How soon a changed file (secrets, tokens) is in force, and a condition is said."""
_HAND_OVER_SECONDS = 0.2
_STOP_SECONDS = 15.0
_GC_THRESHOLD = 50_000

_log = logging.getLogger(__name__)


class StartError(Exception):
    """The server cannot start as it is set up."""


class AddressUnusable(StartError):
    """The address cannot be listened on."""


class TreeUnusable(StartError):
    """The tree is missing or cannot be read."""


class TlsUnusable(StartError):
    """Certificate or key cannot be used."""


def wall_clock() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


def serve(settings: Settings, say: Callable[[str], None]) -> bool:
    """Run a server until it is told to stop; return whether it ended as it should.

    ``say`` prints a line for people. Raise ``StartError``, ``StateError``, ``CredentialsInvalid``, ``UrlInvalid`` or
    ``OSError`` when it cannot start.
    """
    _require_tree(settings)
    prepare(settings.state)
    secrets = None
    if settings.secrets is not None:
        secrets = KeyFile(settings.secrets, parse_secrets)
        secrets.load()
    tokens = KeyFile(settings.state / TOKENS_NAME, parse_tokens, optional=True)
    tokens.load()
    source = _source(settings)
    traffic = Traffic.make(settings, wall_clock, random.random)
    guard = Guard(secrets, tokens, traffic.limits, settings.public_tree)
    with held(settings.state), _listening(settings) as listener:
        server = Server(settings, guard, traffic, source, say)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(server.run(listener))


class Server:
    """One running server."""

    def __init__(
        self, settings: Settings, guard: Guard, traffic: Traffic, source: Source | None, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._traffic = traffic
        self._connections = Connections(
            _most_connections(settings.max_connections), monotonic, settings.request_seconds
        )
        self._say = say
        self._live = Live()
        self._recording = None if source is None else _recording(settings, source, self._live)
        self._conditions = _conditions(guard, traffic, self._recording)
        self._scanner = Scanner(settings.tree, settings.state, ScanOptions())
        self._looked = asyncio.Event()
        self._watcher = Watcher(
            self._scanner, self._live, WatchOptions(poll=settings.poll), wall_clock, [lambda _: self._looked.set()]
        )
        self._threads = ThreadPoolExecutor(_FILE_THREADS, thread_name_prefix="file")

    async def run(self, listener: socket.socket) -> bool:
        """Serve on a listening socket until a signal comes or a part of the server fails."""
        application = Application(self._context())
        http = _Http(self._config(application))
        stop = asyncio.Event()
        tasks = Tasks(on_failure=http.leave)
        _on_signals(http)
        self._traffic.audit.start()
        _on_hangup(self._traffic.audit)
        self._start(tasks, stop)
        if self._recording is not None:
            self._recording.start(tasks, stop)
        announced = asyncio.create_task(self._announce(http, listener))
        try:
            await http.serve([listener])
        finally:
            announced.cancel()
            await self._finish(tasks, stop)
        return tasks.failed is None

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
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise TlsUnusable(f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}: {error}") from error
        return config

    def _start(self, tasks: Tasks, stop: asyncio.Event) -> None:
        tasks.start("watching the tree", self._watcher.run(stop))
        tasks.start("watching what can change", every(_LOOK_SECONDS, stop, self._look_around))
        tasks.start("handing audit lines over", regularly(_HAND_OVER_SECONDS, stop, self._traffic.audit.hand_over))
        tasks.start("closing idle connections", regularly(_LOOK_SECONDS, stop, self._connections.sweep))

    def _look_around(self) -> None:
        """Take up files that changed, and say what is wrong with the server."""
        self._guard.refresh()
        self._conditions.look(wall_clock())

    def _context(self) -> Context:
        recording = self._recording
        nothing = NothingRecorded()
        return Context(
            root=self._settings.tree,
            live=self._live,
            answers=Answers(self._settings.next_check_seconds),
            guard=self._guard,
            sender=FileSender(self._threads),
            check_ins=nothing if recording is None else recording.check_ins,
            records=nothing if recording is None else StoredRecords(recording.intake),
            devices=nothing if recording is None else StoredDevices(DeviceReader(recording.database)),
            rescan=self._watcher.request_rescan,
            clock=wall_clock,
            database_state=_no_database if recording is None else recording.describe,
            conditions=self._conditions,
            traffic=self._traffic,
            exposition=self._exposition(),
            public_metrics=self._settings.public_metrics,
            base_url=self._settings.base_url,
        )

    def _exposition(self) -> Exposition:
        return Exposition(
            [
                lambda: of_traffic(self._traffic, self._connections),
                lambda: of_catalogue(self._live, self._conditions, wall_clock),
            ]
        )

    async def _announce(self, http: _Http, listener: socket.socket) -> None:
        """Say that agents are served, once they are: scripts wait for this line and go on at once."""
        await http.listening.wait()
        host, port = listener.getsockname()[:2]
        _log.info("listening", extra={"host": host, "port": port, "tree": str(self._settings.tree)})
        await self._looked.wait()
        # Everything made so far lives as long as the server: the collector need not look at it again (design §9).
        # What requests leave behind has no cycles, so looking for them may be rare as well.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        shown = f"[{host}]" if ":" in host else host
        self._say(f"listening on {self._settings.scheme}://{shown}:{port}")

    async def _finish(self, tasks: Tasks, stop: asyncio.Event) -> None:
        """Take everything apart, in the order in which nothing is lost."""
        stop.set()
        await tasks.finish(_STOP_SECONDS)
        if self._recording is not None:
            await self._recording.database.close()
        await asyncio.to_thread(self._scanner.close)
        self._threads.shutdown(wait=True)
        await asyncio.to_thread(self._traffic.audit.close)
        _log.info("stopped")


class _Http(uvicorn.Server):
    """uvicorn, with signals left to us: it would die of them after a clean shutdown instead of returning."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.listening.set()

    def leave(self) -> None:
        """Finish what runs, then stop."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def _on_signals(http: _Http) -> None:
    def told(number: signal.Signals) -> None:
        _log.info("%s: finishing what runs, then stopping", number.name)
        # A second signal does not wait for downloads any more.
        http.force_exit = http.should_exit
        http.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)


def _on_hangup(audit: Audit) -> None:
    def told() -> None:
        _log.info("SIGHUP: opening the audit's files again")
        audit.reopen()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, told)


def _most_connections(wanted: int) -> int:
    """Raise the process's limit of descriptors as far as it goes, and return how many connections fit into it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(wanted, hard - RESERVED_DESCRIPTORS)
    if most < wanted:
        _log.warning("%d descriptors leave room for %d connections; see LimitNOFILE= or ulimit -n", hard, most)
    return most


def _source(settings: Settings) -> Source | None:
    if settings.no_database:
        return None
    return (
        EmbeddedPostgres(settings.state) if settings.database_url is None else GivenServer.parse(settings.database_url)
    )


def _require_tree(settings: Settings) -> None:
    tree = settings.tree
    try:
        with os.scandir(tree) as entries:
            next(entries, None)
    except FileNotFoundError:
        raise TreeUnusable(f"--tree {tree} does not exist; make one with: repotool init {tree} --keys DIR") from None
    except NotADirectoryError:
        raise TreeUnusable(f"--tree {tree} is not a folder") from None
    except OSError as error:
        raise TreeUnusable(f"--tree {tree} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Take the address first of all: a second server on it must fail before it touches anything."""
    host, port = settings.host, settings.port
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise AddressUnusable(f"cannot listen on {host}: {error}; check --host") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise AddressUnusable(f"cannot listen on {host} port {port}: {reason}; choose another --port") from error
        listener.setblocking(False)
        yield listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.new_event_loop


def _recording(settings: Settings, source: Source, live: Live) -> Recording:
    return Recording.make(
        source,
        settings.state,
        wall_clock,
        lambda request: channel_of(live.current, request) if live.ready else None,
        spool_megabytes=settings.spool_megabytes,
        keep_months=settings.log_retention_months,
    )


def _conditions(guard: Guard, traffic: Traffic, recording: Recording | None) -> Conditions:
    """Put together what can be wrong with a server."""
    conditions = Conditions()
    conditions.watch("tokens_not_reloaded", lambda: guard.tokens.error)
    if (secrets := guard.secrets) is not None:
        conditions.watch("secrets_not_reloaded", lambda: secrets.error)
    conditions.watch("audit_not_written", lambda: traffic.audit.error)
    if recording is not None:
        recording.watch(conditions)
    return conditions


def _no_database() -> dict[str, Any]:
    return {"state": "off", "since": None}
