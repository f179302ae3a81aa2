"""The server's figures in Prometheus' form. Made when they are asked for; what counts, counts plain integers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from repo_server.requests import BOUNDS, Latency

Source: TypeAlias = Callable[[], Iterable[Metric]]
PREFIX = "repo_server_"


@dataclass(slots=True, eq=False)
class Exposition:
    """Collects from its sources whenever it is asked. One of each server process."""

    sources: list[Source] = field(default_factory=list)
    _registry: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=False))

    def __post_init__(self) -> None:
        for kind in (ProcessCollector, PlatformCollector, GCCollector):
            kind(registry=self._registry)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield every figure, as ``prometheus_client`` wants it."""
        for source in self.sources:
            yield from source()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the figures and their content type, in the form that the client prefers."""
        encoder, kind = choose_encoder(accept)
        return encoder(self._registry), kind


def counter(name: str, text: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()) -> Metric:
    """Return a figure that only grows."""
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()) -> Metric:
    """Return a figure that goes up and down."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def histogram(name: str, text: str, values: Mapping[Any, Latency], labels: tuple[str, ...] = ()) -> Metric:
    """Return how many requests took how long."""
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for key, latency in values.items():
        total = 0
        buckets = []
        for bound, count in zip((*(f"{bound:g}" for bound in BOUNDS), "+Inf"), latency.buckets, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(key, buckets, latency.total)
    return family
