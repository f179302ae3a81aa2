"""``/metrics`` as Prometheus reads it, and who may (NFR-PER-003)."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

from support.figures import figure, figures
from support.server import check_body, environment, running, wait_until
from support.serving import SERVICE
from support.trees import Tree

from repo_server.store.fleet import MAX_VERSIONS, _bounded


def test_metrics_are_for_those_with_a_token_unless_they_are_public(tree: Tree, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text("a:metric-secret-0123456789\n")
    secrets.chmod(0o600)
    state = tmp_path / "state"
    command = [Path(sys.executable).with_name("repo-server"), "token", "add", "prometheus", "--state", state]
    token = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout.strip()
    with running(tree.root, state, "--secrets", str(secrets)) as server:
        assert server.get("/metrics").status == 401
        assert server.request("POST", "/metrics").status == 405
        assert figures(server, {"authorization": f"Bearer {token}"})
    with running(tree.root, state, "--secrets", str(secrets), "--public-metrics") as server:
        assert figures(server)


def test_requests_are_counted_by_endpoint_and_status_with_their_time(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", "--limit-device", "1/1h") as server:
        one = "6f1c2a34-0000-4000-8000-000000000001"
        assert [server.post("/v1/check", check_body(device_id=one)).status for _ in range(3)] == [200, 429, 429]
        server.check(components=[{"name": "service", "version": "1.2.3"}])
        server.get(f"/v1/packages/{SERVICE}")
        server.get("/a/path/that/is/nowhere")
        server.get("/another")
        assert figure(server, "requests_total", endpoint="check", status="200") == 2
        assert figure(server, "requests_total", endpoint="check", status="429") == 2
        assert figure(server, "requests_total", endpoint="package", status="200") == 1
        assert figure(server, "requests_total", endpoint="none", status="404") == 2, "paths are no labels"
        assert figure(server, "limited_requests_total", limit="device") == 2
        assert figure(server, "checks_total", outcome="update") == 1
        assert figure(server, "checks_total", outcome="nothing") == 1
        assert figure(server, "request_seconds_count", endpoint="check") == 4
        assert figure(server, "request_seconds_bucket", endpoint="check", le="+Inf") == 4
        assert 0 < figure(server, "request_seconds_sum", endpoint="check") < 60
        assert figure(server, "connections") >= 1
        wait_until(lambda: figure(server, "audit_lines_total") >= 7, "lines are written", server.log_path)
        assert figure(server, "audit_lines_lost_total") == 0


def test_catalogue_and_problems_are_figures(tree: Tree, tmp_path: Path) -> None:
    (tree.root / "holiday.jpg").write_bytes(b"not a release")
    (tree.root / "service-linux-amd64-9.9.9.tar.gz").write_bytes(b"without sidecars")
    with running(tree.root, tmp_path / "state") as server:
        assert figure(server, "ready") == 1
        assert figure(server, "catalogue_releases") == 1
        assert figure(server, "problems", code="unrecognised_name") == 1
        assert figure(server, "pending_files", code="no_sha256") == 1
        before = figure(server, "catalogue_generation")
        assert 0 <= figure(server, "catalogue_age_seconds") < 3600
        tree.add("ui-linux-amd64-2.0.0.tar.gz", b"ui")
        wait_until(lambda: figure(server, "catalogue_releases") == 2, "the release is counted", server.log_path)
        assert figure(server, "catalogue_generation") > before
        assert figure(server, "condition", code="database_away") == 0


def test_the_end_of_the_metadata_is_a_figure_and_said_before_it_comes(tree: Tree, tmp_path: Path) -> None:
    timestamp = tree.root / "metadata" / "timestamp.json"
    with running(tree.root, tmp_path / "state") as server:
        wait_until(lambda: figure(server, "metadata_expiry_timestamp_seconds", role="root") > time.time(), "it is read")
        assert figure(server, "metadata_expiry_timestamp_seconds", role="timestamp") == 0
        timestamp.write_text('{"signed": {"expires": "2030-01-01T00:00:00Z", "version": 1}, "signatures": []}')
        wait_until(
            lambda: figure(server, "metadata_expiry_timestamp_seconds", role="timestamp") == 1893456000, "it is read"
        )
        assert figure(server, "condition", code="metadata_ends") == 0
        timestamp.write_text('{"signed": {"expires": "2020-01-01T00:00:00Z", "version": 1}, "signatures": []}')
        wait_until(lambda: figure(server, "condition", code="metadata_ends") == 1, "it is said", server.log_path)
        for unusable in ("garbage", '{"signed": {"expires": "2020-01-01T00:00:00"}}'):
            timestamp.write_text(unusable)
            wait_until(lambda: figure(server, "condition", code="metadata_ends") == 0, "unknown", server.log_path)
            timestamp.write_text('{"signed": {"expires": "2021-01-01T00:00:00Z"}}')
            wait_until(lambda: figure(server, "condition", code="metadata_ends") == 1, "known", server.log_path)


def test_devices_and_what_the_database_took_are_figures(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "state", database=True) as server:
        for number in range(1, 4):
            server.check(
                device_id=str(uuid.UUID(int=number)),
                release_channel="beta" if number == 3 else "stable",
                components=[{"name": "service", "version": "1.1.0" if number == 1 else "1.2.3"}],
                health={"status": "degraded" if number == 1 else "healthy"},
            )
        wait_until(lambda: figure(server, "check_ins_total", outcome="written") >= 3, "they are written")
        assert figure(server, "database_ready") == 1
        assert figure(server, "batches_total", kind="check_in") >= 1
        assert figure(server, "last_batch_size", kind="check_in") >= 1
        assert figure(server, "spool_reports") == 0
        report = {
            "record_id": str(uuid.uuid4()), "component_name": "ui", "trigger_source": "x", "status": "success",
            "requested_version": "1.0.0", "attempt_timestamp": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        server.post("/v1/status", {"device_id": str(uuid.UUID(int=1)), "records": [report]})
        assert figure(server, "records_total", outcome="stored") == 1
    with running(tree.root, tmp_path / "state", database=True) as server:
        # Counted once a minute, so by a server that has not counted yet.
        figure(server, "devices")
        stable = {"component": "service", "channel": "stable"}
        wait_until(lambda: figure(server, "devices", version="1.2.3", **stable) == 1, "they are counted")
        assert figure(server, "devices", version="1.1.0", **stable) == 1
        assert figure(server, "devices", component="service", version="1.2.3", channel="beta") == 1
        assert figure(server, "devices_by_health", health="healthy") == 2
        assert figure(server, "devices_by_health", health="degraded") == 1


def test_what_devices_invent_does_not_become_endless_labels() -> None:
    rows = [(f"c{name}", f"1.{version}.0", "stable", 1) for name in range(200) for version in range(200)]
    counts = _bounded([*rows, ("c0", "1.0.0", "stable", 5)])
    assert len(counts) <= MAX_VERSIONS * (MAX_VERSIONS + 1) + 1
    assert sum(counts.values()) == 40_005
    assert counts["c0", "1.0.0", "stable"] == 6
