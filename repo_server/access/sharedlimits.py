"""Limits that several servers share through Redis (design §5, NFR-SRV-009).

Nothing waits for Redis. Each server counts by itself at once, tells Redis when it has let a sixteenth of a limit
through, and refuses what Redis then says is used up. Nearly nobody asks so much: a check costs no question. So all
together let through what the limit allows, at most a sixteenth of it more for each server, and what comes in the
milliseconds until Redis has answered; that is counted too, and made up for before they go on. A Redis that is away or
slow is no outage: each server goes on with its own counts, says so, and asks again every few seconds.

Wrong credentials count together as well, but an address from which somebody has succeeded at any of the servers is
closed at none of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from time import perf_counter

from repo_server.access.buckets import Rate
from repo_server.access.limits import Limits, Rates, device_key, is_loopback, network_of
from repo_server.access.redisbuckets import RedisAway, RedisBuckets
from repo_server.waiting import first_of, pause

_LOOK_SECONDS = 0.1
_LEAST_PAUSE = 0.002
"""Between two rounds: however many there are to be told of, it takes a small part of the event loop's time."""
_PROBE_SECONDS = 2.0
_KEEPS = 16
"""Part of a limit that a server keeps back."""
_MOST_KEPT = 100_000
"""Keys of one kind of which something is kept back; beyond that those that were silent longest are forgotten early."""
_GOOD = "good"
GOOD_SECONDS = 86_400
"""How long an address is known to the others after somebody there has succeeded."""
_REMIND_SECONDS = GOOD_SECONDS / 4

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Kind:
    """One limit: what was let through since Redis was told, and who is refused until when."""

    name: str
    rate: Rate
    wake: Callable[[], object]
    """Called when something is due."""
    keeps: int = 0
    """How much of a key is kept back."""
    due: dict[Hashable, int] = field(default_factory=dict)
    """Key → what is to be told next."""
    refused: dict[Hashable, float] = field(default_factory=dict)
    _kept: dict[Hashable, int] = field(default_factory=dict)
    _kept_before: dict[Hashable, int] = field(default_factory=dict)
    _turn_at: float = 0.0

    def count(self, key: Hashable, now: float) -> float:
        """Count one; return 0, or in how many seconds there is one again."""
        if self.refused and (until := self.refused.get(key)) is not None and until > now:
            return until - now
        kept = self._kept
        count = kept.get(key)
        if count is None:
            count = self._kept_before.pop(key, 0)
        if count < self.keeps:
            kept[key] = count + 1
        else:
            kept.pop(key, None)
            self.due[key] = self.due.get(key, 0) + count + 1
            self.wake()
        return 0.0

    async def tell(self, buckets: RedisBuckets, now: float) -> dict[Hashable, float]:
        """Tell Redis what is due; return who is to be refused, and for how long."""
        due, self.due = self.due, {}
        if now >= self._turn_at or len(self._kept) > _MOST_KEPT:
            # What was let through so long ago does not count any more.
            self._kept_before, self._kept = self._kept, {}
            self._turn_at = now + self.rate.seconds
        if self.refused:
            self.refused = {key: until for key, until in self.refused.items() if until > now}
        if not due:
            return {}
        keys = {_text(key): key for key in due}
        told = await buckets.take(self.name, self.rate, {text: due[key] for text, key in keys.items()})
        refused = {keys[text]: wait for text, wait in told.items()}
        self.refused |= {key: now + wait for key, wait in refused.items()}
        return refused


@dataclass(slots=True)
class SharedLimits:
    """Counts of all servers together. ``limits`` are this server's own; times are those of their clock, in seconds."""

    url: str
    rates: Rates
    limits: Limits
    clock: Callable[[], float] = perf_counter
    error: str | None = None
    """Why Redis is not used now; ``None`` while it is."""
    _buckets: RedisBuckets = field(init=False)
    _address: _Kind | None = None
    _secret: _Kind | None = None
    _device: _Kind | None = None
    _failures: _Kind | None = None
    _good: dict[str, None] = field(default_factory=dict)
    """Addresses from which somebody has succeeded, which Redis has not been told."""
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    _remind_at: float = 0.0
    _ping_at: float = 0.0

    def open(self) -> None:
        """Prepare; connects when it is first needed. Raise ``ValueError`` for a URL that is none."""
        self._buckets = RedisBuckets(self.url)
        self._buckets.open()
        rates = self.rates
        self._address = self._kind("address", rates.address)
        self._secret = self._kind("secret", rates.secret)
        self._device = self._kind("device", rates.device)
        # Of these there are few, and each is told.
        self._failures = self._kind("failures", rates.failures, keeps=False)
        self.limits.elsewhere = self

    def _kind(self, name: str, rate: Rate | None, *, keeps: bool = True) -> _Kind | None:
        return None if rate is None else _Kind(name, rate, self._due.set, rate.count // _KEEPS if keeps else 0)

    def count_check(self, address: str, secret: str | None, device_id: str | None) -> None:
        """Count a request of all servers together; raise ``HttpError`` 429. Waits for nothing."""
        if self.error is not None:
            return
        now = self.clock()
        kind = self._address
        if kind is not None and not is_loopback(address) and (wait := kind.count(network_of(address), now)):
            raise self.limits.refusal("address", wait)
        kind = self._secret
        if kind is not None and secret is not None and (wait := kind.count(secret, now)):
            raise self.limits.refusal("secret", wait)
        kind = self._device
        if kind is not None and device_id is not None and (wait := kind.count(device_key(address, device_id), now)):
            raise self.limits.refusal("device", wait)

    def failed(self, network: str) -> None:
        """Count wrong credentials of an address; ``limits`` are told if it is to be closed."""
        if self._failures is not None and self.error is None and not is_loopback(network):
            self._failures.count(network, self.clock())

    def succeeded(self, network: str) -> None:
        """Have it known that somebody at an address knows a secret; only the first time matters."""
        if self._failures is not None and not is_loopback(network):
            self._good[network] = None

    async def run(self, stop: asyncio.Event) -> None:
        """Tell Redis, and take up what it says, until ``stop`` is set."""
        try:
            while not stop.is_set():
                self._due.clear()
                await self._turn()
                if self.error is not None:
                    await pause(stop, _PROBE_SECONDS)
                elif not stop.is_set():
                    await asyncio.sleep(_LEAST_PAUSE)
                    await first_of(stop.wait(), self._due.wait(), seconds=_LOOK_SECONDS)
        finally:
            await self._buckets.close()

    async def _turn(self) -> None:
        now = self.clock()
        try:
            if self.error is not None or now >= self._ping_at:
                # Also when nobody asks anything: an operator wants to know before.
                await self._buckets.ping()
                self._ping_at = now + _PROBE_SECONDS
            await self._tell(now)
        except RedisAway as error:
            if self.error is None:
                _log.warning("Redis does not answer (%s); each server counts for itself", error)
            self.error = f"Redis does not answer, so each server counts its limits for itself: {error}"
            # Redis may come back without its memory.
            self._remind_at = 0.0
        else:
            self.error = None

    async def _tell(self, now: float) -> None:
        for kind in (self._address, self._secret, self._device):
            if kind is not None:
                await kind.tell(self._buckets, now)
        await self._tell_good(now)
        if self._failures is None:
            return
        failing = [_text(network) for network in self._failures.due]
        refused = await self._failures.tell(self._buckets, now)
        for network in await self._buckets.remembered(_GOOD, failing):
            self.limits.trust(network)
        for key, wait in refused.items():
            self.limits.close(_text(key), now + wait)

    async def _tell_good(self, now: float) -> None:
        """Tell Redis from where somebody has succeeded: of each address once, and now and then of all again."""
        if now >= self._remind_at:
            self._good |= dict.fromkeys(network for network in self.limits.good if not is_loopback(network))
            self._remind_at = now + _REMIND_SECONDS
        good, self._good = self._good, {}
        if good:
            await self._buckets.remember(_GOOD, good, GOOD_SECONDS)


def _text(key: Hashable) -> str:
    """Return what a key is called in Redis."""
    return ":".join(key) if isinstance(key, tuple) else str(key)
