"""Talks to the repository server: ``/v1/check`` and ``/v1/status`` (FR-UPD-002 to FR-UPD-004, EH-CLI-001)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from agent.backoff import full_jitter
from agent.codes import Code
from agent.errors import NetworkFailure
from agent.http import Answer, Transport
from agent.refusals import captive_portal, refusal
from repo_server.core.names import printable
from repo_server.core.wire import CheckRequest, CheckResponse, ErrorBody, StatusRequest, StatusResponse

MAX_ANSWER_BYTES = 1024 * 1024

_Kind = TypeVar("_Kind", CheckResponse, StatusResponse)
_MOST_ERROR_TEXT = 300
_GATEWAY = range(500, 600)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often within one cycle, and how long between; the daemon's own backoff comes on top."""

    rounds: int = 3
    first_seconds: float = 1.0
    longest_seconds: float = 30.0


class Client:
    """Asks the configured servers in order; the first that answers counts."""

    def __init__(
        self,
        transport: Transport,
        servers: Sequence[str],
        *,
        sleep: Callable[[float], None],
        random: Callable[[], float],
        now: Callable[[], datetime],
        retries: Retries = Retries(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._servers = tuple(servers)
        self._sleep = sleep
        self._random = random
        self._now = now
        self._retries = retries
        self._monotonic = monotonic

    def check(self, request: CheckRequest) -> CheckResponse:
        """Ask what to install; raise ``NetworkFailure`` when no server gives a usable answer."""
        return self._ask("/v1/check", msgspec.json.encode(request), CheckResponse)

    def report(self, request: StatusRequest) -> StatusResponse:
        """Send update records; raise ``NetworkFailure``."""
        return self._ask("/v1/status", msgspec.json.encode(request), StatusResponse)

    def _ask(self, path: str, body: bytes, kind: type[_Kind]) -> _Kind:
        for attempt in range(self._retries.rounds):
            failures: list[NetworkFailure] = []
            for server in self._servers:
                try:
                    return self._ask_one(f"{server}{path}", body, kind)
                except NetworkFailure as failure:
                    failures.append(failure)
            if attempt == self._retries.rounds - 1 or not any(_may_pass(failure) for failure in failures):
                break
            pause = self._retries
            self._sleep(full_jitter(attempt, pause.first_seconds, pause.longest_seconds, self._random))
        raise _together(failures)

    def _ask_one(self, url: str, body: bytes, kind: type[_Kind]) -> _Kind:
        deadline = self._monotonic() + self._transport.timeouts.exchange
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        with self._transport.send("POST", url, body=body, headers=headers) as answer:
            content = answer.read(MAX_ANSWER_BYTES, deadline, self._monotonic)
            if answer.status != 200:  # noqa: PLR2004 -- OK
                raise refusal(answer, _said(content), self._now())
            try:
                return _decoded(content, kind)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise _unusable(answer, content, f"{error}") from None


def _decoded(content: bytes, kind: type[_Kind]) -> _Kind:
    """Decode an answer; when to ask again is advice, and junk in its place is as if the server had said nothing."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError:
        if kind is not CheckResponse:
            raise
        fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        fields["next_check_seconds"] = msgspec.Raw(b"0")
        return msgspec.json.decode(msgspec.json.encode(fields), type=kind)


def _unusable(answer: Answer, content: bytes, why: str) -> NetworkFailure:
    return captive_portal(answer, content) or NetworkFailure(
        Code.BAD_RESPONSE, f"{answer.url} answers with something else than expected: {why}", status=answer.status
    )


def _said(content: bytes) -> str:
    try:
        body = msgspec.json.decode(content, type=ErrorBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return printable(f"{body.error_code}: {body.message}")[:_MOST_ERROR_TEXT]


def _may_pass(failure: NetworkFailure) -> bool:
    """Whether asking again in a moment may help; a server that named its time is not asked before it (NFR-REL-001)."""
    if failure.retry_after_seconds is not None:
        return False
    if failure.status is None or failure.status in _GATEWAY:
        return failure.code is not Code.TLS
    return failure.code is Code.TIMEOUT or failure.status in {408, 429}


def _together(failures: list[NetworkFailure]) -> NetworkFailure:
    first = failures[0]
    waits = [failure.retry_after_seconds for failure in failures if failure.retry_after_seconds is not None]
    return NetworkFailure(
        first.code,
        "; ".join(failure.message for failure in failures),
        retry_after_seconds=min(waits) if len(waits) == len(failures) else None,
        status=first.status,
    )
