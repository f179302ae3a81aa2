"""Figures of all processes for whoever asks one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from repo_server.workers.crew import Crew, Member
from repo_server.workers.messages import Collect, Collected, encode

_SECONDS = 1.0
"""A worker that does not answer in time is left out: its silence is seen otherwise."""


@dataclass(slots=True)
class _Question:
    asker: Member
    ticket: int
    missing: set[int]
    parts: dict[str, bytes]
    timer: asyncio.TimerHandle


@dataclass(slots=True)
class Gathering:
    """The main process's side: asks every worker, adds its own, and answers the one that asked."""

    crew: Crew
    own: Callable[[], bytes]
    _open: dict[int, _Question] = field(default_factory=dict)
    _last: int = 0

    def begin(self, asker: Member, ticket: int) -> None:
        """Ask everybody on behalf of one."""
        self._last += 1
        number = self._last
        timer = asyncio.get_running_loop().call_later(_SECONDS, self._finish, number)
        missing = {member.number for member in self.crew.members.values() if member.ready}
        self._open[number] = _Question(asker, ticket, missing, {"main": self.own()}, timer)
        self.crew.tell(encode(Collect(number)))

    def take(self, member: Member, ticket: int, data: bytes) -> None:
        """Take one's figures."""
        question = self._open.get(ticket)
        if question is None:
            return
        question.parts[str(member.number)] = data
        question.missing.discard(member.number)
        if not question.missing:
            self._finish(ticket)

    def _finish(self, number: int) -> None:
        question = self._open.pop(number, None)
        if question is not None:
            question.timer.cancel()
            question.asker.channel.send(Collected(question.ticket, question.parts))
