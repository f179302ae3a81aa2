"""The ASGI application: which route answers, and what becomes of its errors (EH-SRV-001)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias

from starlette.types import Message, Receive, Scope, Send

from repo_server.access.addresses import peer_of
from repo_server.answers import PACKAGES
from repo_server.routes import catalogue, check, health, metrics, openapi, operator, packages, status
from repo_server.routes.context import Context
from repo_server.web.heads import Head
from repo_server.web.http import CHECK_BODY_BYTES, Call, ClientGone, HttpError, error_response
from repo_server.web.refusals import Refusal

Handler: TypeAlias = Callable[[Context, Call], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler, what it is called in metrics, and which kind of request it is when there is no room for more."""

    handler: Handler
    name: str
    gate: str = "other"
    limited: bool = True
    """Whether it counts for the limit per address; load balancers ask for health very often."""


# Exact paths are one dictionary lookup, the check first among them: it is nearly all of the traffic (design §9).
_EXACT: dict[str, Route] = {
    check.PATH: Route(check.check, "check"),
    status.PATH: Route(status.status, "status", "report"),
    catalogue.PROBLEMS: Route(catalogue.problems, "problems", "query"),
    catalogue.CATALOGUE: Route(catalogue.catalogue, "catalogue", "query"),
    catalogue.RESCAN: Route(catalogue.rescan, "rescan", "query"),
    openapi.PATH: Route(openapi.openapi, "openapi"),
    operator.DEVICES: Route(operator.devices, "devices", "query"),
    operator.VERSIONS: Route(operator.versions, "versions", "query"),
    operator.FAILURES: Route(operator.failures, "failures", "query"),
    operator.EVENTS: Route(operator.events, "events", "query"),
    metrics.PATH: Route(metrics.metrics, "metrics", "query"),
    "/healthz": Route(health.healthz, "healthz", limited=False),
    "/readyz": Route(health.readyz, "readyz", limited=False),
}
_BELOW: tuple[tuple[str, Route], ...] = (
    (PACKAGES, Route(packages.packages, "package", "download")),
    (packages.TREE, Route(packages.tree, "tree", "download")),
    (packages.METADATA, Route(packages.metadata, "metadata")),
    (f"{operator.DEVICES}/", Route(operator.device, "device", "query")),
)
_NOTHING = "-"
"""Method and path in the audit where a client sent none that could be read."""
_OK = b"content-type: application/json\r\ncontent-length: %d\r\n"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Application:
    """Answers every request; nothing that goes wrong in a route ends a connection without an answer."""

    context: Context
    path: str = check.PATH
    short_path: bytes = check.PATH.encode()
    short_bytes: int = CHECK_BODY_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            raise RuntimeError(f"expected http, got {scope['type']}")
        traffic = self.context.traffic
        call = Call(
            scope, receive, send, traffic.proxies.address(scope), perf_counter(), scheme=traffic.proxies.scheme(scope)
        )
        route = _route(scope["path"])
        gate = traffic.gates[route.gate]
        entered = gate.enter(call.address)
        try:
            if not entered:
                raise traffic.turn_away(gate)  # noqa: TRY301 -- answered like every other error
            if route.limited:
                traffic.limits.address(call.address, call.began)
            call.require_host()
            await route.handler(self.context, call)
        except ClientGone:
            _log.debug("the client hung up before its request was complete")
        except HttpError as error:
            await call.fail(error)
        except asyncio.CancelledError:
            # Only the end of the shutdown's time cancels requests; uvicorn closes the connection of an unfinished one.
            _log.warning("cut off: the server stops and its time is up", extra={"path": scope["path"]})
        except Exception:
            _log.exception("request failed", extra={"path": scope["path"], "method": scope["method"]})
            if call.status:
                raise
            await call.fail(_internal_error())
        finally:
            if entered:
                gate.leave(call.address)
            traffic.finished(call, route.name, perf_counter() - call.began)

    def answer_at_once(self, scope: Scope, head: Head, body: bytes) -> tuple[int, bytes, bytes]:
        """Answer a check whose body is there, as ``protocol.ShortWay`` says."""
        traffic = self.context.traffic
        proxies, headers = traffic.proxies, head.single
        if proxies.networks:
            address, scheme = proxies.address(scope, headers), proxies.scheme(scope, headers)
        else:
            address, scheme = peer_of(scope), scope["scheme"]
        call = Call(scope, _no_receive, _no_send, address, perf_counter(), None, scheme)
        call.headers, call.head = headers, head
        try:
            traffic.limits.address(call.address, call.began)
            answer = check.answer_at_once(self.context, call, body)
            call.status, lines = 200, _OK % len(answer)
        except HttpError as error:
            lines, answer = _failed(call, error)
        except Exception:  # noqa: BLE001 -- nothing may end a connection without an answer
            _log.exception("request failed", extra={"path": scope["path"], "method": scope["method"]})
            lines, answer = _failed(call, _internal_error())
        traffic.finished(call, "check", perf_counter() - call.began)
        return call.status, lines, answer

    def turned_away(self, client: tuple[str, int] | None, refusal: Refusal) -> None:
        """Count a connection that got an error before there was a request, and write its audit line."""
        scope: Scope = {"type": "http", "method": _NOTHING, "path": _NOTHING, "headers": [], "client": client}
        call = Call(scope, _no_receive, _no_send, peer_of(scope), perf_counter())
        call.status, call.error = refusal.status, HttpError(refusal.status, refusal.code, refusal.message)
        self.context.traffic.finished(call, "none", 0.0)


def _failed(call: Call, error: HttpError) -> tuple[bytes, bytes]:
    call.status, call.error = error.status, error
    headers, body = error_response(error)
    return b"".join([b"%b: %b\r\n" % header for header in headers]), body


def _internal_error() -> HttpError:
    return HttpError(500, "internal_error", "the server failed; its log says how")


async def _no_receive() -> Message:
    raise RuntimeError("the body is there already")


async def _no_send(_message: Message) -> None:
    raise RuntimeError("the answer is returned, not sent")


def _route(path: str) -> Route:
    route = _EXACT.get(path)
    if route is not None:
        return route
    if path == "*":
        return _WHOLE_SERVER
    return next((found for prefix, found in _BELOW if path.startswith(prefix)), _NOWHERE)


async def _nothing_here(_context: Context, _call: Call) -> None:
    raise HttpError(404, "not_found", "there is no such endpoint")


async def _whole_server(_context: Context, call: Call) -> None:
    """Answer ``OPTIONS *``, which asks whether somebody is there (RFC 9110, 9.3.7); no other method has that target."""
    if call.method != "OPTIONS":
        raise HttpError(400, "malformed_request", f"the target * is for OPTIONS; expected a path after {call.method}")
    await call.start(204, ((b"allow", b"GET, HEAD, POST"),))
    await call.send({"type": "http.response.body", "body": b""})


_WHOLE_SERVER = Route(_whole_server, "none")
_NOWHERE = Route(_nothing_here, "none")
