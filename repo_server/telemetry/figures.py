"""Which figures there are: names, sentences, labels (NFR-PER-003). The names are an interface: dashboards use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client.metrics_core import Metric

from repo_server.core.model import FileState
from repo_server.recording import Recording
from repo_server.store.fleet import Fleet
from repo_server.telemetry.conditions import Conditions
from repo_server.telemetry.exposition import counter, gauge, histogram
from repo_server.traffic import Traffic
from repo_server.tree.expiry import Expiry
from repo_server.tree.live import Live
from repo_server.web.connections import Connections
from repo_server.web.tls import Tls


def of_traffic(traffic: Traffic, connections: Connections) -> Iterator[Metric]:
    """Yield requests, limits, connections and the audit."""
    requests = traffic.requests
    yield counter(
        "requests",
        "Requests answered; status 499: the client went away.",
        {(endpoint, str(status)): count for (endpoint, status), count in requests.answered.items()},
        ("endpoint", "status"),
    )
    yield histogram(
        "request_seconds",
        "Time from a request's head to the end of its answer.",
        {(endpoint,): latency for endpoint, latency in requests.latency.items()},
        ("endpoint",),
    )
    yield counter(
        "checks",
        "Checks answered, by whether an update was offered.",
        {(outcome,): count for outcome, count in requests.checks.items()},
        ("outcome",),
    )
    yield counter(
        "limited_requests",
        "Requests refused with 429, by the limit that was reached.",
        {(kind,): count for kind, count in traffic.limits.refused.items()},
        ("limit",),
    )
    yield counter(
        "shed_requests",
        "Requests refused with 503 because too many of their kind were under way.",
        {(kind,): count for kind, count in requests.shed.items()},
        ("kind",),
    )
    yield gauge(
        "running_requests",
        "Requests under way.",
        {(gate.kind,): gate.running for gate in traffic.gates.values()},
        ("kind",),
    )
    yield gauge("connections", "Open connections.", {(): connections.count})
    yield gauge("connections_limit", "Connections that there may be.", {(): connections.most})
    yield counter(
        "connections_evicted", "Idle connections closed to make room for new ones.", {(): connections.evicted}
    )
    yield counter("connections_refused", "Connections for which there was no room.", {(): connections.refused})
    yield counter("audit_lines", "Audit lines written.", {(): traffic.audit.written})
    yield counter("audit_lines_lost", "Audit lines that could not be written.", {(): traffic.audit.lost})


def of_recording(recording: Recording) -> Iterator[Metric]:
    """Yield what the database took, and what waits for it."""
    counters, spool = recording.counters, recording.intake.spool
    yield gauge("database_ready", "1 if the database can be used.", {(): recording.database.ready})
    yield gauge("spool_reports", "Reports that wait on disk for the database.", {(): spool.entries})
    yield gauge("spool_bytes", "Bytes of the spool.", {(): spool.size})
    yield counter(
        "records",
        "Update records: stored, spooled, replayed from the spool, refused, lost.",
        {
            ("stored",): counters.records_stored,
            ("spooled",): counters.records_spooled,
            ("replayed",): counters.records_replayed,
            ("refused",): counters.records_refused,
            ("lost",): counters.records_lost,
        },
        ("outcome",),
    )
    yield counter("reports_turned_away", "Reports that agents were told to keep.", {(): counters.requests_turned_away})
    yield counter(
        "check_ins",
        "Check-ins written, and dropped because the database was away too long.",
        {("written",): counters.check_ins_written, ("dropped",): counters.check_ins_dropped},
        ("outcome",),
    )
    batches = {("record",): counters.record_batches, ("check_in",): counters.check_in_batches}
    yield counter("batches", "Transactions of records and of check-ins.", batches, ("kind",))
    sizes = {("record",): counters.last_record_batch, ("check_in",): counters.last_check_in_batch}
    yield gauge("last_batch_size", "Rows of the last transaction.", sizes, ("kind",))


def of_fleet(fleet: Fleet) -> Iterator[Metric]:
    """Yield how many devices are on what, as it was counted last."""
    counts = fleet.latest()
    yield gauge(
        "devices",
        "Devices by component, version and channel; rare ones together as other.",
        counts.versions,
        ("component", "version", "channel"),
    )
    yield gauge(
        "devices_by_health",
        "Devices by what they say of their health.",
        {(health,): count for health, count in counts.health.items()},
        ("health",),
    )


def of_metadata(expiry: Expiry) -> Iterator[Metric]:
    """Yield when the tree's TUF metadata ends, as far as there is some."""
    ends = {(role,): end.timestamp() for role, end in expiry.ends.items()}
    yield gauge("metadata_expiry_timestamp_seconds", "When the tree's TUF metadata ends, by role.", ends, ("role",))


def of_workers(ready: int, restarts: int) -> Iterator[Metric]:
    """Yield how the workers are; the main process says it."""
    yield gauge("workers_ready", "Worker processes that serve agents.", {(): ready})
    yield counter("worker_restarts", "Worker processes that were replaced since the start.", {(): restarts})


def of_certificate(tls: Tls | None) -> Iterator[Metric]:
    """Yield when the certificate ends, if there is one."""
    if tls is not None and tls.expires is not None:
        end = tls.expires.timestamp()
        yield gauge("certificate_expiry_timestamp_seconds", "When the TLS certificate ends.", {(): end})


def of_catalogue(live: Live, conditions: Conditions, clock: Callable[[], datetime]) -> Iterator[Metric]:
    """Yield what is offered, and what is wrong."""
    now = clock()
    found = conditions.look(now)
    yield gauge("ready", "1 if agents are served.", {(): live.ready})
    yield gauge("condition", "What is wrong with the server itself.", {(item.code,): 1 for item in found}, ("code",))
    if not live.ready:
        return
    snapshot = live.current
    age = (now - snapshot.since).total_seconds()
    yield gauge("catalogue_generation", "Grows with every change of the tree.", {(): snapshot.generation})
    yield gauge("catalogue_age_seconds", "Time since the catalogue last changed.", {(): age})
    yield gauge("catalogue_releases", "Releases in the catalogue.", {(): len(snapshot.catalogue)})
    for name, text, state in (
        ("problems", "Files of the tree with which something is wrong, by code (L8).", FileState.PROBLEM),
        ("pending_files", "Files of the tree that wait for something, by code (L8).", FileState.PENDING),
    ):
        codes = Counter(item.code for item in snapshot.result.problems if item.state is state)
        yield gauge(name, text, {(code,): count for code, count in codes.items()}, ("code",))
