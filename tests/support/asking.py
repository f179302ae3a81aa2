"""A client with servers that answer as they are told."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agent.client import Client, Retries
from agent.errors import NetworkFailure
from agent.http import Timeouts, Transport
from repo_server.core.wire import CheckRequest, CheckResponse
from support.agent_http import Reply, Request

NOW = dt.datetime(2026, 11, 21, 17, 0, tzinfo=dt.UTC)
REQUEST = CheckRequest("1.0.0", "linux", "amd64", "stable", ())
ANSWER = json.dumps(
    {"updates": [], "channel": "stable", "channel_source": "default", "reasons": [], "next_check_seconds": 60,
     "catalogue": 1, "from_the_future": True}
).encode()  # fmt: skip
PATIENT = Timeouts()
QUICK = Timeouts(connect=5.0, read=0.5, headers=1.0, exchange=1.0)
"""For servers that never answer: how slow this machine is decides nothing."""


def good(_: Request, reply: Reply) -> None:
    reply.json(ANSWER)


@dataclass
class Asking:
    """A client with the pauses it made."""

    client: Client
    pauses: list[float]

    def check(self) -> CheckResponse:
        return self.client.check(REQUEST)

    def failure(self) -> NetworkFailure:
        with pytest.raises(NetworkFailure) as caught:
            self.check()
        return caught.value


def asking(*servers: str, mirrors: tuple[str, ...] = (), rounds: int = 1, **transport: Any) -> Asking:
    pauses: list[float] = []
    sender = Transport(servers, mirrors, secret="s3cret", **{"timeouts": PATIENT, **transport})
    client = Client(
        sender,
        servers,
        sleep=pauses.append,
        random=lambda: 0.5,
        now=lambda: NOW,
        retries=Retries(rounds=rounds),
    )
    return Asking(client, pauses)


def answering(status: int, body: bytes, **headers: str) -> Callable[[Request, Reply], None]:
    return lambda _, reply: reply.send(status, body, **headers)


def endless(_: Request, reply: Reply) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while not reply.stopping.is_set():
        reply.raw(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def dripping_headers(_: Request, reply: Reply) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\n")
    while not reply.stopping.wait(0.02):
        reply.raw(b"x")
