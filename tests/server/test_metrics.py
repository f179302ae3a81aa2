"""``/metrics`` as Prometheus reads it, and who may (NFR-PER-003)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.figures import figure, figures
from support.server import check_body, environment, running, wait_until
from support.serving import SERVICE
from support.trees import Tree


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
