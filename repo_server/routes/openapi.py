"""``GET /v1/openapi.json``: what this server understands; open to everybody (TR-API-001)."""

from __future__ import annotations

from functools import cache
from typing import Any

from repo_server.openapi import document
from repo_server.operations import API
from repo_server.routes.context import Context
from repo_server.web.http import Call, require_reading
from repo_server.web.revalidation import answer_or_unchanged

PATH = "/v1/openapi.json"


async def openapi(_context: Context, call: Call) -> None:
    """Send the API's description."""
    require_reading(call)
    await answer_or_unchanged(call, _document())


@cache
def _document() -> dict[str, Any]:
    return document(API)
