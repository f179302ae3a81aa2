"""The main process of several: scans, keeps the database, and keeps the workers running."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from repo_server.credentials import Credentials
from repo_server.feed import TreeFeed
from repo_server.heart import Heart
from repo_server.recording import Recording
from repo_server.settings import Settings
from repo_server.supervise import Tasks, every, regularly
from repo_server.telemetry.conditions import Condition, Conditions
from repo_server.tree.live import Snapshot
from repo_server.waiting import pause
from repo_server.workers.crew import Crew, Launch, Member
from repo_server.workers.gathering import Gathering
from repo_server.workers.messages import (
    Begin,
    Collect,
    Conditioned,
    DatabaseIs,
    Figures,
    Message,
    ReadAgain,
    Rescan,
    encode,
)
from repo_server.workers.news import news

_TELL_SECONDS = 0.25
_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 20.0
"""How long after the time for downloads a worker may take to write what it has."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Told:
    """What workers know; a new one is told all of it."""

    catalogue: Snapshot | None = None
    database: DatabaseIs | None = None
    conditions: tuple[Condition, ...] = ()


class MainProcess:
    """Has one of everything that there must be one of, and tells the workers of it."""

    def __init__(
        self,
        settings: Settings,
        feed: TreeFeed,
        recording: Recording | None,
        heart: Heart,
        launch: Launch,
        figures: Callable[[], bytes],
        credentials: Credentials,
        clock: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._feed = feed
        self._recording = recording
        self._heart = heart
        self._credentials = credentials
        self._clock = clock
        self._listener = -1
        self._crew = Crew(settings.workers, launch, self._greet, self._heard)
        self._gathering = Gathering(self._crew, figures)
        self._told = _Told()
        self._conditions = Conditions()
        self._conditions.watch("workers_missing", self._missing)
        self._conditions.watch("scan_stalled", heart.symptom)
        feed.watch(self._conditions)
        if recording is not None:
            recording.watch_keeping(self._conditions)
        self._leave = asyncio.Event()

    async def run(self, listener: socket.socket, on_ready: Callable[[], None]) -> bool:
        """Run workers on a listening socket until ``leave``; return whether nothing failed.

        ``on_ready`` is called once every worker serves agents.
        """
        self._listener = listener.fileno()
        stop = asyncio.Event()
        tasks = Tasks(on_failure=self._leave.set)
        self._feed.start(tasks, stop)
        if self._recording is not None:
            self._recording.start(tasks, stop, takes=False)
        tasks.start("telling the workers", self._tell(stop))
        tasks.start("telling the service manager", regularly(self._heart.pause, stop, self._heart.beat))
        tasks.start("looking for what is wrong", every(_LOOK_SECONDS, stop, self._look))
        crew = Tasks(on_failure=self._leave.set)
        crew.start("the workers", self._crew.run())
        ready = asyncio.create_task(self._announce(on_ready))
        try:
            await self._leave.wait()
        finally:
            ready.cancel()
            self._heart.end_serving()
            listener.close()
            self._crew.leave()
            await self._wait_for_workers(crew)
            stop.set()
            await tasks.finish(_GRACE_SECONDS)
        return tasks.failed is None and crew.failed is None

    def leave(self) -> None:
        """Have the workers finish and end, then end; said again, nobody waits for downloads any more."""
        if self._leave.is_set():
            self._crew.leave()
        self._leave.set()

    @property
    def ready(self) -> int:
        """How many workers serve agents."""
        return sum(member.ready for member in self._crew.members.values())

    @property
    def restarts(self) -> int:
        """How many workers were replaced since the start."""
        return self._crew.restarts

    def read_again(self) -> None:
        """Have every process open its audit file and read secrets, tokens and certificate again.

        A message, for the signal would end a worker that is just starting.
        """
        self._credentials.read_again()
        self._crew.tell(encode(ReadAgain()))

    def follow(self, snapshot: Snapshot) -> None:
        """Tell every worker of a changed catalogue, at once."""
        told = encode(news(self._told.catalogue, snapshot))
        self._told.catalogue = snapshot
        self._crew.tell(told)

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        await self._crew.all_ready.wait()
        on_ready()
        self._heart.begin_serving()

    async def _wait_for_workers(self, crew: Tasks) -> None:
        """Let workers write what they have, then kill those that do not end."""
        seconds = self._settings.shutdown_seconds + _GRACE_SECONDS
        late = asyncio.get_running_loop().call_later(seconds, self._crew.kill)
        await crew.finish(seconds + _GRACE_SECONDS)
        late.cancel()

    def _greet(self, member: Member) -> None:
        channel, told = member.channel, self._told
        channel.send(Begin(self._settings, self._listener, self._credentials.in_force()))
        if told.database is not None:
            channel.send(told.database)
        channel.send(Conditioned(told.conditions))
        if told.catalogue is not None:
            channel.send(news(None, told.catalogue))

    def _heard(self, member: Member, message: Message) -> None:
        match message:
            case Rescan(path):
                self._feed.request_rescan(path)
            case Collect(ticket):
                self._gathering.begin(member, ticket)
            case Figures(ticket, data):
                self._gathering.take(member, ticket, data)
            case _:
                _log.error("worker %d says what is not its to say: %s", member.number, type(message).__name__)

    async def _tell(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._tell_of_the_database()
            self._tell_of_conditions()
            await pause(stop, _TELL_SECONDS)

    def _tell_of_the_database(self) -> None:
        if self._recording is None:
            return
        database = self._recording.database
        state = DatabaseIs(database.state, database.detail)
        if state != self._told.database:
            self._told.database = state
            self._crew.tell(encode(state))

    def _tell_of_conditions(self) -> None:
        found = self._conditions.known
        if found != self._told.conditions:
            self._told.conditions = found
            self._crew.tell(encode(Conditioned(found)))

    def _look(self) -> None:
        self._credentials.refresh()
        self._conditions.look(self._clock())

    def _missing(self) -> str | None:
        # A copy, for this is asked in a thread, and a worker that is ready again leaves the table meanwhile.
        trouble = self._crew.trouble.copy()
        if not trouble:
            return None
        said = "; ".join(trouble[number] for number in sorted(trouble))
        return f"{len(trouble)} of {self._settings.workers} workers are not there: {said}"
