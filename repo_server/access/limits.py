"""How often somebody may ask: per address, secret and device, and more strictly with wrong credentials (NFR-SRV-009).

Defaults: 5,000 devices behind one address may all start at once, with ten requests each. A limit per device counts a
device at its address, so that whoever holds the shared secret cannot use up another device's share from elsewhere.
What comes from loopback is this machine, or a proxy that nobody has named with ``--trusted-proxy``: one client's
excess would be everybody's, so the limit per address does not count there.

Wrong credentials: an address from which nobody has yet succeeded is not listened to for a while after too many of
them, so that secrets cannot be guessed. One from which somebody has is never closed to those who know a secret: one
misconfigured machine must not take the updates from the thousands behind the same address. Several servers may know
of both together (``sharedlimits``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from repo_server.access.buckets import Buckets, Rate
from repo_server.web.http import HttpError

SPREAD_SECONDS = 60.0
"""Those who share a bucket come back spread over so long a time."""
DEVICE_SPREAD_SECONDS = 10.0
_MAX_GOOD = 200_000


@dataclass(frozen=True, slots=True)
class Rates:
    """What is allowed; ``None``: anything."""

    address: Rate | None
    secret: Rate | None
    device: Rate | None
    failures: Rate | None


class Elsewhere(Protocol):
    """The other servers, where several know together of wrong credentials. Never waits, never fails."""

    def failed(self, network: str) -> None:
        """Have wrong credentials counted."""

    def succeeded(self, network: str) -> None:
        """Have it known that somebody there knows a secret; said of each network once."""


@dataclass(slots=True)
class Limits:
    """Counts requests in this process's memory and refuses with 429. Times are a monotonic clock's, in seconds."""

    rates: Rates
    random: Callable[[], float]
    refused: dict[str, int] = field(default_factory=dict)
    """Kind of limit → requests refused since the start."""
    elsewhere: Elsewhere | None = None
    _address: Buckets | None = None
    _secret: Buckets | None = None
    _device: Buckets | None = None
    _failures: Buckets | None = None
    _good: dict[str, None] = field(default_factory=dict)
    """Addresses from which somebody has succeeded, the latest last."""
    _closed: dict[str, float] = field(default_factory=dict)
    """Address that is not listened to → until when."""

    def __post_init__(self) -> None:
        self._address = _buckets(self.rates.address)
        self._secret = _buckets(self.rates.secret)
        self._device = _buckets(self.rates.device)
        self._failures = _buckets(self.rates.failures)

    def address(self, address: str, now: float) -> None:
        """Count a request of an address; raise ``HttpError`` 429."""
        if self._address is not None and not is_loopback(address):
            wait = self._address.take(network_of(address), now)
            if wait:
                raise self.refusal("address", wait)

    def secret(self, secret: str, now: float) -> None:
        """Count a request with a secret, by its id; raise ``HttpError`` 429."""
        if self._secret is not None and (wait := self._secret.take(secret, now)):
            raise self.refusal("secret", wait)

    def device(self, address: str, device_id: str, now: float) -> None:
        """Count a request of a device; raise ``HttpError`` 429."""
        if self._device is not None and (wait := self._device.take(device_key(address, device_id), now)):
            raise self.refusal("device", wait)

    def listen(self, address: str, now: float) -> None:
        """Raise ``HttpError`` 429 while an address is not listened to because of its wrong credentials."""
        if self._closed and (until := self._closed.get(network_of(address))) is not None:
            if until > now:
                raise self.refusal("failures", until - now)
            del self._closed[network_of(address)]

    def failed(self, address: str, now: float) -> None:
        """Count wrong credentials; raise ``HttpError`` 429 when there were too many."""
        network = network_of(address)
        if self.elsewhere is not None:
            self.elsewhere.failed(network)
        if self._failures is None or not (wait := self._failures.take(network, now)):
            return
        self.close(network, now + wait)
        raise self.refusal("failures", wait)

    def close(self, network: str, until: float) -> None:
        """Listen to nobody there until then, unless somebody there has succeeded."""
        if network not in self._good:
            if len(self._closed) >= _MAX_GOOD:
                self._closed.clear()
            self._closed[network] = until

    def succeeded(self, address: str) -> None:
        """Note that somebody there knows a secret."""
        network = network_of(address)
        if network not in self._good:
            self.trust(network)
            if self.elsewhere is not None:
                self.elsewhere.succeeded(network)

    def trust(self, network: str) -> None:
        """Note that somebody there has succeeded, here or elsewhere."""
        if network not in self._good and len(self._good) >= _MAX_GOOD:
            del self._good[next(iter(self._good))]
        self._good[network] = None
        self._closed.pop(network, None)

    @property
    def good(self) -> Collection[str]:
        """Networks from which somebody has succeeded, the latest last."""
        return self._good.keys()

    def refusal(self, kind: str, wait: float) -> HttpError:
        """Return the 429 that tells each of many to come back at another time."""
        self.refused[kind] = self.refused.get(kind, 0) + 1
        spread = DEVICE_SPREAD_SECONDS if kind == "device" else SPREAD_SECONDS
        seconds = int(wait + self.random() * spread) + 1
        message = f"too many requests for one {_SAID[kind]}; try again in {seconds} s"
        return HttpError(429, "rate_limited", message, {"retry-after": str(seconds)})


_SAID = {"address": "address", "secret": "secret", "device": "device", "failures": "address with wrong credentials"}


def device_key(address: str, device_id: str) -> Hashable:
    """Return whose bucket it is."""
    return address, device_id


def network_of(address: str) -> str:
    """Return what is limited together: an IPv4 address, or an IPv6 network of 64 bits, which is one customer's."""
    return address if ":" not in address else _network_of_ipv6(address)


@lru_cache(maxsize=8192)
def _network_of_ipv6(address: str) -> str:
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(found) >> 64 << 64)}/64"


def is_loopback(address: str) -> bool:
    """Whether a request comes from this machine ("": from a Unix socket)."""
    return address.startswith("127.") or address in {"::1", ""}


def _buckets(rate: Rate | None) -> Buckets | None:
    return None if rate is None else Buckets(rate)
