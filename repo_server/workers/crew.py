"""Starts the workers, replaces those that end or say nothing, and has them leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeAlias

from repo_server.waiting import pause
from repo_server.workers.channel import Channel
from repo_server.workers.messages import Alive, Message, Ready

SILENT_SECONDS = 20.0
"""A worker that says nothing for so long is killed: its event loop hangs. Longer than anything that it ever does."""
_LOOK_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_STEADY_SECONDS = 30.0
"""A worker that lived so long is replaced at once."""

_log = logging.getLogger(__name__)

Launch: TypeAlias = Callable[[int, socket.socket], Awaitable[Process]]
"""Starts the worker of a number that has this end of a channel; raises ``OSError``."""


@dataclass(slots=True)
class Member:
    """One worker that runs."""

    number: int
    process: Process
    channel: Channel
    heard: float = field(default_factory=monotonic)
    """When it last said something; monotonic seconds."""
    ready: bool = False


@dataclass(slots=True)
class Crew:
    """Keeps ``count`` workers running."""

    count: int
    launch: Launch
    greet: Callable[[Member], None]
    """Tells a new worker what it needs."""
    heard: Callable[[Member, Message], None]
    """Takes what workers say, but for signs of life."""
    silent_seconds: float = SILENT_SECONDS
    members: dict[int, Member] = field(default_factory=dict)
    restarts: int = 0
    """Workers that were replaced since the start."""
    trouble: dict[int, str] = field(default_factory=dict)
    """Number of a worker that is not there → what became of it."""
    all_ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once every worker has been ready."""
    _leaving: asyncio.Event = field(default_factory=asyncio.Event)
    _seen_ready: set[int] = field(default_factory=set)

    async def run(self) -> None:
        """Keep the workers running until ``leave``, then wait for the last one."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                group.create_task(self._keep(number), name=f"worker {number}")

    def leave(self) -> None:
        """Have every worker finish what it does and end; said again, it does not wait for downloads."""
        self._leaving.set()
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every worker at once."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send every worker a signal."""
        for member in self.members.values():
            with contextlib.suppress(ProcessLookupError):
                member.process.send_signal(number)

    def tell(self, encoded: bytes) -> None:
        """Send every worker one encoded message."""
        for member in self.members.values():
            member.channel.send_encoded(encoded)

    async def _keep(self, number: int) -> None:
        failures = 0
        while not self._leaving.is_set():
            started = monotonic()
            try:
                ended = _said(await self._live_through(number))
            except OSError as error:
                ended = f"could not be started: {error}"
            if self._leaving.is_set():
                return
            failures = 1 if monotonic() - started > _STEADY_SECONDS else failures + 1
            seconds = pause_after(failures)
            self.restarts += 1
            self.trouble[number] = f"worker {number} {ended}"
            _log.error("worker %d %s; another one starts in %.1f s", number, ended, seconds)
            await pause(self._leaving, seconds)

    async def _live_through(self, number: int) -> int:
        """Start a worker and return its exit code, negative for a signal; raise ``OSError``."""
        with _pair() as (ours, theirs):
            process = await self.launch(number, theirs)
            theirs.close()
            member = Member(number, process, await Channel.over(ours))
        self.members[number] = member
        self.greet(member)
        if self._leaving.is_set():
            process.terminate()
        tasks = [asyncio.create_task(self._listen(member)), asyncio.create_task(self._watch(member))]
        try:
            return await process.wait()
        finally:
            del self.members[number]
            for task in tasks:
                task.cancel()
            member.channel.close()

    async def _listen(self, member: Member) -> None:
        async for message in member.channel:
            member.heard = monotonic()
            match message:
                case Alive():
                    continue
                case Ready():
                    member.ready = True
                    self.trouble.pop(member.number, None)
                    self._seen_ready.add(member.number)
                    if len(self._seen_ready) == self.count:
                        self.all_ready.set()
                case _:
                    self.heard(member, message)

    async def _watch(self, member: Member) -> None:
        while True:
            before = monotonic()
            await asyncio.sleep(_LOOK_SECONDS)
            now = monotonic()
            if now - before > 3 * _LOOK_SECONDS:
                # It was us who stood still; what it said meanwhile has not been read yet.
                member.heard = now
            if now - member.heard > self.silent_seconds:
                _log.error("worker %d says nothing for %.0f s and is killed", member.number, self.silent_seconds)
                member.process.kill()
                return


def pause_after(failures: int) -> float:
    """Return how many seconds to wait after so many failures in a row."""
    # Bounded before it is reckoned: a worker may fail for days, and 2 ** 1024 is more than a float holds.
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 10))


@contextlib.contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give two connected sockets; on an error both are closed, otherwise they are the caller's."""
    ours, theirs = socket.socketpair()
    try:
        yield ours, theirs
    except BaseException:
        ours.close()
        theirs.close()
        raise


def _said(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
