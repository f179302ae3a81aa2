"""What happens to every request beside its answer: whose it is, whether there is room for it, counting, the audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from repo_server.access.addresses import Proxies, parse_network
from repo_server.access.buckets import Rate
from repo_server.access.limits import Limits, Rates, is_loopback, network_of
from repo_server.access.sharedlimits import SharedLimits
from repo_server.settings import Settings
from repo_server.telemetry.audit import Audit, Line, Sink, shortened
from repo_server.telemetry.auditfile import RotatedFile, Stream
from repo_server.telemetry.requests import Requests
from repo_server.web.http import Call, HttpError

AUDIT_NAME = "audit.log"
MAX_RUNNING = 4000
"""Requests under way; a check is under way for less than a millisecond."""
MAX_REPORTS = 256
"""``/v1/status`` requests under way: each may hold a megabyte and waits for the database."""
MAX_REPORTS_OF_ONE = 64
"""Of one address: a body may take its time to arrive."""
MAX_DOWNLOADS = 512
"""Each holds half a megabyte of its file."""
MAX_DOWNLOADS_OF_ONE = 128
"""Of one address: whoever takes a byte now and then holds a place for hours."""
MAX_QUERIES = 32
"""Operators' requests under way: each may ask the database."""
_SHED_SECONDS = 5.0
_SHED_SPREAD_SECONDS = 25.0


@dataclass(slots=True)
class Gate:
    """Lets so many requests of a kind be under way at once."""

    kind: str
    most: int
    of_one: int | None = None
    """How many of one address; ``None``: all."""
    running: int = 0
    _addresses: dict[str, int] = field(default_factory=dict)

    def enter(self, address: str) -> bool:
        """Let a request in, or not."""
        if self.running >= self.most:
            return False
        if self.of_one is not None:
            network = network_of(address)
            there = self._addresses.get(network, 0)
            if there >= self.of_one and not is_loopback(address):
                return False
            self._addresses[network] = there + 1
        self.running += 1
        return True

    def leave(self, address: str) -> None:
        """Let out a request that was let in."""
        self.running -= 1
        if self.of_one is not None:
            network = network_of(address)
            self._addresses[network] -= 1
            if not self._addresses[network]:
                del self._addresses[network]


@dataclass(frozen=True, slots=True)
class Traffic:
    """One server process's traffic."""

    proxies: Proxies
    limits: Limits
    requests: Requests
    audit: Audit
    clock: Callable[[], datetime]
    shared: SharedLimits | None = None
    """Limits of several servers together."""
    gates: dict[str, Gate] = field(
        default_factory=lambda: {
            gate.kind: gate
            for gate in (
                Gate("other", MAX_RUNNING),
                Gate("report", MAX_REPORTS, MAX_REPORTS_OF_ONE),
                Gate("download", MAX_DOWNLOADS, MAX_DOWNLOADS_OF_ONE),
                Gate("query", MAX_QUERIES),
            )
        }
    )

    @classmethod
    def make(
        cls, settings: Settings, clock: Callable[[], datetime], random: Callable[[], float], worker: int = 0
    ) -> Traffic:
        """Put the parts together; ``audit.start`` begins the writing.

        Each worker counts for itself and has its share of the limits; but a device keeps to one connection, and so to
        one worker. Each writes an audit file of its own, for two cannot rotate one.
        """
        whole = Rates(
            Rate.parse(settings.limit_address),
            Rate.parse(settings.limit_secret),
            Rate.parse(settings.limit_device),
            Rate.parse(settings.limit_failures),
        )
        workers = settings.workers
        rates = Rates(
            _share(whole.address, workers), _share(whole.secret, workers), whole.device, _share(whole.failures, workers)
        )
        proxies = Proxies(tuple(parse_network(text) for text in settings.trusted_proxy), settings.proxy_header.encode())
        path = settings.state / AUDIT_NAME if settings.audit_log is None else settings.audit_log
        sinks: list[Sink] = [
            RotatedFile(_of_worker(path, worker), settings.audit_megabytes * 1_000_000, settings.audit_files)
        ]
        if settings.audit_stdout:
            sinks.append(Stream(1))
        limits = Limits(rates, random)
        shared = None
        if settings.redis_url is not None:
            shared = SharedLimits(settings.redis_url, whole, limits)
            shared.open()
        return cls(proxies, limits, Requests(), Audit(tuple(sinks)), clock, shared)

    def turn_away(self, gate: Gate) -> HttpError:
        """Return the 503 for a request that there is no room for; each client is to come back at another time."""
        self.requests.shed[gate.kind] = self.requests.shed.get(gate.kind, 0) + 1
        seconds = int(_SHED_SECONDS + self.limits.random() * _SHED_SPREAD_SECONDS)
        message = f"too many requests of this kind are under way; try again in {seconds} s"
        return HttpError(503, "overloaded", message, {"retry-after": str(seconds)})

    def share(self, call: Call, device_id: str | None = None) -> None:
        """Count a request where several servers share their limits; raise ``HttpError`` 429."""
        if self.shared is not None:
            secret = call.who if call.who is not None and call.who.startswith("secret:") else None
            self.shared.count_check(call.address, secret, device_id)

    def finished(self, call: Call, endpoint: str, seconds: float) -> None:
        """Count a request that was answered, or whose client went away (status 499), and write its audit line."""
        status = call.status or 499
        self.requests.count(endpoint, status, seconds)
        scope = call.scope
        error = call.error
        path = scope["path"]
        self.audit.add(
            Line(
                call.now or self.clock(),
                call.address,
                scope["method"],
                path if len(path) < 100 else shortened(path),  # noqa: PLR2004 -- nearly always
                call.who,
                call.auth,
                status,
                round(seconds * 1000, 3),
                call.asked,
                call.told,
                None if error is None else error.code,
                None if error is None else error.message,
            )
        )


def _share(rate: Rate | None, workers: int) -> Rate | None:
    return None if rate is None else rate.shared(workers)


def _of_worker(path: Path, worker: int) -> Path:
    """Return the worker's own file beside that of the first; what is no regular file, all write to."""
    if worker == 0 or (path.exists() and not path.is_file()):
        return path
    return path.with_name(f"{path.stem}-{worker}{path.suffix}")
