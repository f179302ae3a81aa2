"""A package file, servers that have it or pretend to, and a downloader for it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.download import Downloader, DownloadLimits
from agent.errors import AgentError
from agent.http import Timeouts, Transport
from repo_server.core.wire import Action, Update
from support.agent_http import Reply, Request

CONTENT = os.urandom(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "service-linux-amd64-1.2.3.tar.gz"
PATH = f"/v1/packages/{NAME}"
UPDATE = Update("service", "1.2.3", PATH, SHA256, "", "", len(CONTENT), (), Action.UPDATE, (), NAME)
HALF = len(CONTENT) // 2
Script = Callable[[Request, Reply], None]


def file_server(content: bytes = CONTENT, etag: str = f'"{SHA256}"') -> Script:
    """Answer as a good file server does: with ranges, and with the whole file when the entity is another one."""

    def answer(request: Request, reply: Reply) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if match is None or request.headers.get("if-range", etag) != etag:
            reply.send(200, content, etag=etag)
            return
        start = int(match[1])
        if start >= len(content):
            reply.send(416, content_range=f"bytes */{len(content)}")
            return
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        reply.send(206, content[start:], etag=etag, content_range=span)

    return answer


def breaking_off(at: int = HALF, etag: str = f'"{SHA256}"', content: bytes = CONTENT) -> Script:
    """Announce everything and hang up in the middle."""

    def answer(_: Request, reply: Reply) -> None:
        reply.send(200, content[:at], claim=len(content), etag=etag)
        reply.hang_up()

    return answer


def in_turn(*scripts: Script) -> Script:
    """Answer each request with the next script, the last one for ever."""
    left = list(scripts)

    def answer(request: Request, reply: Reply) -> None:
        script = left.pop(0) if len(left) > 1 else left[0]
        script(request, reply)

    return answer


def downloader(*servers: str, mirrors: tuple[str, ...] = (), **changes: Any) -> Downloader:
    limits = DownloadLimits(**{"spare_bytes": 0, **changes.pop("limits", {})})
    transport = Transport(servers, mirrors, secret="s3cret", timeouts=changes.pop("timeouts", Timeouts()))
    kept: dict[str, Any] = {
        "sleep": lambda _: None,
        "random": lambda: 0.5,
        "monotonic": time.monotonic,
        "free_bytes": lambda path: shutil.disk_usage(path).free,
        **changes,
    }
    return Downloader(transport, servers, mirrors, limits=limits, **kept)


def failure(made: Downloader, into: Path, update: Update = UPDATE) -> AgentError:
    with pytest.raises(AgentError) as caught:
        made.fetch(update, into)
    assert not (into / SHA256).exists()
    return caught.value


def names(folder: Path) -> set[str]:
    return {path.name.removeprefix(SHA256) for path in folder.iterdir()}


def check_fetched(path: Path, into: Path) -> None:
    assert path == into / SHA256
    assert path.read_bytes() == CONTENT
    assert names(into) == {""}


def offer_with(**changes: Any) -> Update:
    fields = {name: getattr(UPDATE, name) for name in UPDATE.__struct_fields__}
    return Update(**{**fields, **changes})


def drip(_: Request, reply: Reply) -> None:
    reply.raw(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(CONTENT))
    for byte in CONTENT:
        if reply.stopping.wait(0.02):
            return
        reply.raw(bytes([byte]))
