"""A repository server for tests of the agent: the real decision over real HTTP, on signed releases in a real tree.

It counts what it is asked, keeps what agents report, and can be told to fail.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import msgspec
from support.trees import Tree

from repo_server.core.catalogue import Catalogue
from repo_server.core.model import Block, Channel, Meta, Release, Requirement
from repo_server.core.names import parse_release_name
from repo_server.core.offer import decide
from repo_server.core.sidecars import parse_sig
from repo_server.core.version import Version
from repo_server.core.wire import (
    SECRET_HEADER,
    CheckRequest,
    CheckResponse,
    Dependency,
    ReasonEntry,
    SignatureEntry,
    StatusRequest,
    StatusResponse,
    Update,
    UpdateRecord,
    device_of,
)


@dataclass
class Failing:
    """What a path answers instead, and how often yet."""

    status: int = 503
    body: bytes = b'{"error_code": "unavailable", "message": "told to fail"}'
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1_000_000
    after: int = 0
    """How many are answered as usual before."""

    def is_due(self) -> bool:
        """Count a call, and say whether it fails."""
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0


class Repository:
    """Serves a tree on a free port of loopback, from a thread, until it is closed."""

    def __init__(self, folder: Path) -> None:
        self.tree = Tree(folder)
        self.releases: dict[str, Release] = {}
        self.calls: Counter[str] = Counter()
        self.checks: list[CheckRequest] = []
        self.secrets: list[str | None] = []
        self.records: dict[str, UpdateRecord] = {}
        self.deliveries: Counter[str] = Counter()
        """Record id → how often it came."""
        self.failing: dict[str, Failing] = {}
        self.next_check_seconds = 14_400
        self.secret: str | None = None
        """What agents must know, if anything."""
        self.spoil: dict[str, Any] = {}
        """Fields that are overwritten in every offer: a server that lies."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def root_json(self) -> Path:
        return self.tree.root / "metadata" / "1.root.json"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish(
        self, name: str, content: bytes, *, channel: Channel = Channel.STABLE, requires: dict[str, str] | None = None
    ) -> None:
        """Put a signed release into the tree and the catalogue."""
        path = self.tree.add(name, content, channel=channel)
        needed = tuple(Requirement(component, Version(text)) for component, text in (requires or {}).items())
        self.releases[name] = Release(
            id=parse_release_name(name).id,
            path=name,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            signatures=parse_sig(Path(f"{path}.sig").read_bytes()),
            channel=channel,
            meta=Meta(requires=needed),
        )

    def block(self, name: str) -> None:
        """Recall a release."""
        self.releases[name] = replace(self.releases[name], block=Block("told to"))

    def final(self, component: str) -> list[UpdateRecord]:
        """Return the reports about a component, in the order in which they first came."""
        return [record for record in self.records.values() if record.component_name == component]

    def failure_of(self, path: str, secret: str | None) -> Failing | None:
        """Count a call, and return what it answers instead."""
        if self.secret not in {None, secret}:
            return Failing(401, b'{"error_code": "unauthorized", "message": "this secret is not active"}')
        failing = self.failing.get(path)
        return failing if failing is not None and failing.is_due() else None

    def check(self, request: CheckRequest) -> CheckResponse:
        """Answer as the real server does."""
        decision = decide(Catalogue.of(self.releases.values()), device_of(request), datetime.now(UTC))
        updates = tuple(
            Update(
                name=offer.release.component,
                version=str(offer.release.version),
                url=f"{self.url}/v1/packages/{offer.release.path}",
                hash_sha256=offer.release.sha256,
                signature=offer.release.signatures[0].signature,
                key_id=offer.release.signatures[0].key_id,
                size=offer.release.size,
                signatures=tuple(SignatureEntry(one.key_id, one.signature) for one in offer.release.signatures),
                action=offer.action,
                dependencies=tuple(Dependency(one.name, str(one.min_version)) for one in offer.release.requires),
                path=offer.release.path,
            )
            for offer in decision.offers
        )
        return CheckResponse(
            updates=tuple(msgspec.structs.replace(update, **self.spoil) for update in updates),
            channel=decision.channel.channel,
            channel_source=decision.channel.source,
            reasons=tuple(ReasonEntry(one.component, one.code, one.detail) for one in decision.reasons),
            next_check_seconds=self.next_check_seconds,
            catalogue=1,
        )

    def accept(self, request: StatusRequest) -> StatusResponse:
        """Take every record, once."""
        for raw in request.records:
            record = msgspec.json.decode(raw, type=UpdateRecord)
            self.deliveries[str(record.record_id)] += 1
            self.records.setdefault(str(record.record_id), record)
        return StatusResponse(tuple(self.records), ())


def _handler(repository: Repository) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            repository.secrets.append(self.headers.get(SECRET_HEADER))
            if self._told_to_fail():
                return
            if self.path == "/v1/check":
                request = msgspec.json.decode(body, type=CheckRequest)
                repository.checks.append(request)
                self._answer(200, msgspec.json.encode(repository.check(request)))
            else:
                self._answer(200, msgspec.json.encode(repository.accept(msgspec.json.decode(body, type=StatusRequest))))

        def do_GET(self) -> None:
            if self._told_to_fail():
                return
            content = (repository.tree.root / self.path.removeprefix("/v1/packages/")).read_bytes()
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            if start and self.headers.get("If-Range", etag) == etag:
                span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}", "ETag": etag}
                self._answer(206, content[start:], span, "application/octet-stream")
            else:
                self._answer(200, content, {"ETag": etag}, "application/octet-stream")

        def _told_to_fail(self) -> bool:
            path = "/v1/packages" if self.path.startswith("/v1/packages/") else self.path
            repository.calls[path] += 1
            failing = repository.failure_of(path, self.headers.get(SECRET_HEADER))
            if failing is None:
                return False
            self._answer(failing.status, failing.body, failing.headers)
            return True

        def _answer(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, kind: str = "application/json"
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
