"""``/healthz`` and ``/readyz``: for load balancers and service managers; open to everybody."""

from __future__ import annotations

from repo_server.routes.context import Context
from repo_server.web.http import Call, require_reading


async def healthz(_context: Context, call: Call) -> None:
    """Say that the process answers."""
    require_reading(call)
    await call.json({"status": "ok"})


async def readyz(context: Context, call: Call) -> None:
    """Say whether agents are served (200) or why not yet (503), and what else is wrong.

    Only a server that has not looked at its tree yet is not ready. Agents are served by the last good catalogue,
    without a database, with the last good secrets and so on, and a load balancer must not take every server away for
    what is wrong with all of them (promise 4).
    """
    require_reading(call)
    ready = context.live.ready
    scan: dict[str, object] = {"state": "ready" if ready else "scanning"}
    if ready:
        snapshot = context.live.current
        scan["catalogue"] = snapshot.generation
        scan["releases"] = len(snapshot.catalogue)
        scan["problems"] = len(snapshot.result.problems)
    # Messages may name paths and hosts; operators read them in /v1/problems, everybody in the log.
    conditions = [{"code": item.code, "since": item.since} for item in context.conditions.look(context.clock())]
    answer = {"ready": ready, "scan": scan, "database": context.database_state(), "conditions": conditions}
    await call.json(answer, 200 if ready else 503)
