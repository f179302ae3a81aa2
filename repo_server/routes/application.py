"""The ASGI application: which route answers, and what becomes of its errors (EH-SRV-001)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

from repo_server.answers import PACKAGES
from repo_server.http import Call, ClientGone, HttpError
from repo_server.routes import catalogue, check, health, operator, packages, status
from repo_server.routes.context import Context

Handler: TypeAlias = Callable[[Context, Call], Awaitable[None]]

# Exact paths are one dictionary lookup, the check first among them: it is nearly all of the traffic (design §9).
_EXACT: dict[str, Handler] = {
    check.PATH: check.check,
    status.PATH: status.status,
    catalogue.PROBLEMS: catalogue.problems,
    catalogue.CATALOGUE: catalogue.catalogue,
    operator.DEVICES: operator.devices,
    catalogue.RESCAN: catalogue.rescan,
    "/healthz": health.healthz,
    "/readyz": health.readyz,
}
_BELOW: tuple[tuple[str, Handler], ...] = (
    (PACKAGES, packages.packages),
    (packages.TREE, packages.tree),
    (packages.METADATA, packages.metadata),
    (f"{operator.DEVICES}/", operator.device),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Application:
    """Answers every request; nothing that goes wrong in a route ends a connection without an answer."""

    context: Context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            raise RuntimeError(f"expected http, got {scope['type']}")
        call = Call(scope, receive, send)
        try:
            await _route(scope["path"])(self.context, call)
        except ClientGone:
            _log.debug("the client hung up before its request was complete")
        except HttpError as error:
            await call.fail(error)
        except asyncio.CancelledError:
            # Only the end of the shutdown's time cancels requests; uvicorn closes the connection of an unfinished one.
            _log.warning("cut off: the server stops and its time is up", extra={"path": scope["path"]})
        except Exception:
            _log.exception("request failed", extra={"path": scope["path"], "method": scope["method"]})
            if call.started:
                raise
            await call.fail(HttpError(500, "internal_error", "the server failed; its log says how"))


def _route(path: str) -> Handler:
    handler = _EXACT.get(path)
    if handler is not None:
        return handler
    return next((found for prefix, found in _BELOW if path.startswith(prefix)), _nothing_here)


async def _nothing_here(_context: Context, _call: Call) -> None:
    raise HttpError(404, "not_found", "there is no such endpoint")
