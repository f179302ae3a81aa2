"""Clients that keep asking a server, and count what became of every request."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from support.server import check_body, wait_until


@dataclass
class Load:
    """So many clients at once, each on a connection that it keeps while the server does."""

    url: str
    reports: bool = False
    """Whether every fifth request reports an update."""
    headers: dict[str, str] = field(default_factory=dict)
    answered: int = 0
    errors: list[str] = field(default_factory=list)
    """Requests that got no answer, or another than 200."""
    connections: int = 0
    """Connections that were made."""
    devices: set[str] = field(default_factory=set)
    """Devices whose check was answered."""
    records: set[str] = field(default_factory=set)
    """Records that were acknowledged."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_for(self, more: int) -> None:
        """Wait until so many more requests have been answered."""
        goal = self.answered + more
        wait_until(lambda: self.answered >= goal, f"{more} more requests are answered; errors: {self.errors[-5:]}")

    def run(self) -> None:
        """Ask until told to stop; a request that failed is sent once more, as the agent does later."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        number = 0
        while not self._stop.is_set():
            number += 1
            path, body = self._request(number)
            for _ in range(2):
                problem = self._ask(connection, path, body)
                if problem is None:
                    break
                connection.close()
                with self._lock:
                    self.errors.append(problem)
        connection.close()

    def _request(self, number: int) -> tuple[str, dict[str, Any]]:
        device_id = str(uuid.uuid4())
        if not self.reports or number % 5:
            return "/v1/check", check_body(device_id=device_id)
        record = {
            "record_id": str(uuid.uuid4()), "component_name": "ui", "trigger_source": "x", "requested_version": "1.0.0",
            "status": "success", "attempt_timestamp": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        return "/v1/status", {"device_id": device_id, "records": [record]}

    def _ask(self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> str | None:
        fresh = connection.sock is None
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **self.headers})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error} on {'a new' if fresh else 'an open'} connection"
        finally:
            with self._lock:
                self.connections += fresh
        if response.status != 200:
            return f"{response.status}: {answer[:200]!r}"
        with self._lock:
            self.answered += 1
            if path == "/v1/check":
                self.devices.add(body["device_id"])
            else:
                self.records.update(json.loads(answer)["accepted"])
        return None


@contextlib.contextmanager
def load(url: str, clients: int = 8, **options: Any) -> Iterator[Load]:
    """Have clients ask until the block ends, and wait for their last answers."""
    asking = Load(url, **options)
    threads = [threading.Thread(target=asking.run, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield asking
    finally:
        asking._stop.set()
        for thread in threads:
            thread.join(90)
