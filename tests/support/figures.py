"""Reads a server's metrics as Prometheus does."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from support.server import RunningServer


def figures(
    server: RunningServer, headers: Mapping[str, str] | None = None
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every figure: (name, sorted labels) → value."""
    response = server.get("/metrics", headers)
    assert response.status == 200, response.data
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.data.decode())
        for sample in family.samples
    }


def figure(server: RunningServer, name: str, **labels: str) -> float:
    """Return one figure of ours by its name without the prefix; 0 if it is not there."""
    return figures(server).get((f"repo_server_{name}", tuple(sorted(labels.items()))), 0.0)
