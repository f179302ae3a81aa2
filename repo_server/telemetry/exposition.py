"""The server's figures in Prometheus' form. Made when they are asked for; what counts, counts plain integers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from repo_server.telemetry.requests import BOUNDS, Latency

Source: TypeAlias = Callable[[], Iterable[Metric]]
PREFIX = "repo_server_"


class _Family(msgspec.Struct, array_like=True):
    name: str
    kind: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


_families = msgspec.msgpack.Decoder(list[_Family])


class _Everybodys(CollectorRegistry):
    """The figures of several processes."""

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        super().__init__(auto_describe=False)
        self._metrics: dict[str, Metric] = {}
        for worker, data in sorted(parts.items()):
            for family in _families.decode(data):
                metric = self._metrics.setdefault(family.name, Metric(family.name, family.text, family.kind))
                for name, labels, value in family.samples:
                    metric.add_sample(name, labels | ({"worker": worker} if worker else {}), value)

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        yield from self._metrics.values()


@dataclass(slots=True, eq=False)
class Exposition:
    """Collects from its sources whenever it is asked. One of each server process."""

    sources: list[Source] = field(default_factory=list)
    gather: Callable[[], Awaitable[Mapping[str, bytes]]] | None = None
    """Asks all processes of this server, where there are several."""
    _registry: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=False))

    def __post_init__(self) -> None:
        for kind in (ProcessCollector, PlatformCollector, GCCollector):
            kind(registry=self._registry)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield every figure, as ``prometheus_client`` wants it."""
        for source in self.sources:
            yield from source()

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the figures and their content type, in the form that the client prefers.

        Those of several processes stand there with the label ``worker``, its number or ``main``.
        """
        encoder, kind = choose_encoder(accept)
        if self.gather is None:
            return encoder(self._registry), kind
        return encoder(_Everybodys(await self.gather())), kind

    def figures(self) -> bytes:
        """Return this process's figures for another one to render."""
        families = [
            _Family(metric.name, metric.type, metric.documentation, _samples(metric))
            for metric in self._registry.collect()
        ]
        return msgspec.msgpack.encode(families)


def _samples(metric: Metric) -> list[tuple[str, dict[str, str], float]]:
    return [(sample.name, sample.labels, float(sample.value)) for sample in metric.samples]


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
