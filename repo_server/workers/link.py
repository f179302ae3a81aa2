"""A worker's side: what the main process tells it, and what it asks for.

::

    MainProcessGone       the main process is not there any more; the worker leaves
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from repo_server.store import DatabaseAway
from repo_server.store.database import State
from repo_server.store.source import Source
from repo_server.supervise import Tasks
from repo_server.telemetry.conditions import Condition
from repo_server.tree.live import Live
from repo_server.workers.channel import Channel
from repo_server.workers.messages import (
    Alive,
    Begin,
    Collect,
    Collected,
    Conditioned,
    DatabaseIs,
    Figures,
    Message,
    News,
    ReadAgain,
    Ready,
    Rescan,
)
from repo_server.workers.news import apply

_ALIVE_SECONDS = 1.0
_GATHER_SECONDS = 3.0


class MainProcessGone(Exception):
    """The main process is not there any more."""


@dataclass(slots=True)
class MainsDatabase:
    """The database as the main process keeps it: reached only while it says that it is there and migrated."""

    source: Source
    """How a worker connects; starts and stops nothing."""
    state: DatabaseIs = field(default_factory=lambda: DatabaseIs(State.STARTING, ""))
    _told: threading.Condition = field(default_factory=threading.Condition)
    _released: bool = False

    def __str__(self) -> str:
        return str(self.source)

    def ensure_running(self) -> str:
        """Wait while the main process starts it, and return how to connect."""
        with self._told:
            self._told.wait_for(lambda: self._released or self.state.state is not State.STARTING)
            if self.state.state is not State.READY:
                raise DatabaseAway(self.state.detail or "the server stops")
        return self.source.ensure_running()

    def running(self) -> bool:
        """Whether the main process says so."""
        return self.state.state is State.READY

    def stop(self) -> None:
        """Let go of it."""
        self.release()
        self.source.stop()

    def become(self, state: DatabaseIs) -> None:
        """Take up what the main process says."""
        with self._told:
            self.state = state
            self._told.notify_all()

    def release(self) -> None:
        """Wait no longer: nothing more will be said."""
        with self._told:
            self._released = True
            self._told.notify_all()


@dataclass(slots=True)
class Link:
    """One worker's connection with the main process."""

    channel: Channel
    database: MainsDatabase | None
    live: Live = field(default_factory=Live)
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    conditions: tuple[Condition, ...] = ()
    """What is wrong elsewhere."""
    figures: Callable[[], bytes] = bytes
    """This worker's, for whoever asks one of us."""
    read_again: Callable[[], None] = lambda: None
    """What SIGHUP asks for."""
    _questions: dict[int, asyncio.Future[dict[str, bytes]]] = field(default_factory=dict)
    _tickets: Iterator[int] = field(default_factory=itertools.count)
    _loop: asyncio.AbstractEventLoop | None = None

    def start(self, tasks: Tasks, stop: asyncio.Event) -> None:
        """Follow the main process until ``stop`` is set."""
        tasks.start("following the main process", self.follow(stop))

    async def close(self) -> None:
        """Hang up."""
        self.channel.close()

    async def follow(self, stop: asyncio.Event) -> None:
        """Take up what the main process says until ``stop`` is set; raise ``MainProcessGone``."""
        self._loop = asyncio.get_running_loop()
        stopped = asyncio.ensure_future(stop.wait())
        alive = asyncio.create_task(self._sound_alive())
        try:
            while not stop.is_set():
                receiving = asyncio.ensure_future(self.channel.receive())
                await asyncio.wait({stopped, receiving}, return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    receiving.cancel()
                elif (message := receiving.result()) is not None:
                    self._take(message)
                else:
                    raise MainProcessGone("the main process is gone; finishing what runs, then stopping")
        finally:
            stopped.cancel()
            alive.cancel()
            if self.database is not None:
                self.database.release()

    def say_ready(self) -> None:
        """Tell the main process that agents are served."""
        self.channel.send(Ready())

    def request_rescan(self, path: str | None) -> None:
        """Have a path looked at, or with ``None`` everything. From any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.channel.send, Rescan(path))

    async def gather(self) -> dict[str, bytes]:
        """Return every process's figures, by its name; only this one's if the main process does not answer."""
        ticket = next(self._tickets)
        answer: asyncio.Future[dict[str, bytes]] = asyncio.get_running_loop().create_future()
        self._questions[ticket] = answer
        self.channel.send(Collect(ticket))
        try:
            async with asyncio.timeout(_GATHER_SECONDS):
                return await answer
        except TimeoutError:
            return {"": self.figures()}
        finally:
            del self._questions[ticket]

    def _take(self, message: Message) -> None:
        match message:
            case News():
                self.live.put(apply(message, self.live.current if self.live.ready else None))
                self.looked.set()
            case DatabaseIs():
                if self.database is not None:
                    self.database.become(message)
            case Conditioned():
                self.conditions = message.conditions
            case ReadAgain():
                self.read_again()
            case Collect(ticket):
                self.channel.send(Figures(ticket, self.figures()))
            case Collected(ticket, parts):
                if (answer := self._questions.get(ticket)) is not None and not answer.done():
                    answer.set_result(parts)
            case _:
                raise TypeError(f"a worker is not told {type(message).__name__}")

    async def _sound_alive(self) -> None:
        while True:
            self.channel.send(Alive())
            await asyncio.sleep(_ALIVE_SECONDS)


async def begin(channel: Channel) -> Begin:
    """Return the first message; raise ``MainProcessGone``."""
    message = await channel.receive()
    if not isinstance(message, Begin):
        raise MainProcessGone("the main process ended before it said what to do")
    return message
