"""``GET /metrics`` for Prometheus: with an operator's token, or for everybody with ``--public-metrics``."""

from __future__ import annotations

from repo_server.routes.context import Context
from repo_server.web.http import Call, require_reading

PATH = "/metrics"


async def metrics(context: Context, call: Call) -> None:
    """Show the server's figures."""
    require_reading(call)
    if not context.public_metrics:
        context.guard.operator(call)
    body, kind = await context.exposition.render(call.header(b"accept") or "")
    await call.answer(200, body, ((b"content-type", kind.encode()), (b"cache-control", b"no-store")))
