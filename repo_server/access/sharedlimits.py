"""Limits that several servers share through Redis, by the library ``limits`` (design §5, NFR-SRV-009).

Each server first counts by itself, so that Redis is asked about nothing that one server alone would refuse. A Redis
that is away or slow is no outage: the server goes on with its own counts, says so, and asks again every few seconds.
Wrong credentials are counted by each server alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from repo_server.access.buckets import Rate
from repo_server.access.limits import Rates, is_loopback, network_of
from repo_server.web.http import HttpError

if TYPE_CHECKING:
    from limits import RateLimitItem

PREFIX = "repo-server"
_PATIENCE_SECONDS = 0.25
_PROBE_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SharedLimits:
    """Counts in Redis. ``refusal`` makes the 429 of a kind of limit."""

    url: str
    rates: Rates
    refusal: Callable[[str, float], HttpError]
    error: str | None = None
    """Why Redis is not used now; ``None`` while it is."""
    _strategy: Any = None
    _items: dict[str, tuple[RateLimitItem, Rate]] = field(default_factory=dict)

    def open(self) -> None:
        """Prepare; connects when it is first needed. Raise ``ValueError`` for a URL that is none."""
        # Only servers that share their limits need these libraries.
        import limits
        from limits.aio.strategies import SlidingWindowCounterRateLimiter
        from limits.errors import ConfigurationError
        from limits.storage import storage_from_string
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # One attempt, and a short one: whoever asked us is waiting.
        options: dict[str, Any] = {
            "socket_timeout": _PATIENCE_SECONDS,
            "socket_connect_timeout": _PATIENCE_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }
        try:
            storage = storage_from_string(f"async+{self.url}", implementation="redispy", key_prefix=PREFIX, **options)
        except ConfigurationError as error:
            raise ValueError(f"--redis-url: {error}") from None
        self._strategy = SlidingWindowCounterRateLimiter(storage)
        for kind, rate in (
            ("address", self.rates.address),
            ("secret", self.rates.secret),
            ("device", self.rates.device),
        ):
            if rate is not None:
                self._items[kind] = limits.RateLimitItemPerSecond(rate.count, int(rate.seconds), kind), rate

    async def count(self, address: str, secret: str | None, device_id: str | None) -> None:
        """Count a request of all servers together; raise ``HttpError`` 429."""
        if self.error is not None:
            return
        keys: dict[str, tuple[str, ...]] = {}
        if not is_loopback(address):
            keys["address"] = (network_of(address),)
        if secret is not None:
            keys["secret"] = (secret,)
        if device_id is not None:
            keys["device"] = (network_of(address), device_id)
        asked = {
            kind: self._strategy.hit(self._items[kind][0], *key) for kind, key in keys.items() if kind in self._items
        }
        answers = await self._asked(asyncio.gather(*asked.values()))
        if answers is None:
            return
        for kind, let_through in zip(asked, answers, strict=True):
            if not let_through:
                rate = self._items[kind][1]
                raise self.refusal(kind, rate.seconds / rate.count)

    async def run(self, stop: asyncio.Event) -> None:
        """Look after Redis while it is away, until ``stop`` is set."""
        while not stop.is_set():
            if self.error is not None and await self._asked(self._strategy.storage.get(PREFIX)) is not None:
                self.error = None
            try:
                await asyncio.wait_for(stop.wait(), _PROBE_SECONDS)
            except TimeoutError:
                continue

    async def _asked(self, question: Awaitable[Any]) -> Any:
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(2 * _PATIENCE_SECONDS):
                return await question
        except (RedisError, OSError, TimeoutError) as error:
            if self.error is None:
                _log.warning("Redis does not answer (%s); each server counts for itself", type(error).__name__)
            self.error = (
                f"Redis does not answer, so each server counts its limits for itself: {str(error) or 'too slow'}"
            )
            return None
