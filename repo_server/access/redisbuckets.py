"""Token buckets in Redis, for several servers together (NFR-SRV-009).

The same bucket as in ``buckets``, one number: when it will be full again, by Redis's clock. What was let through
already is taken in any case, and for many keys in one round trip, by a script. The library ``limits`` does not count
what it refuses, and asks for each key by itself: 95 µs of processor time for one instead of 7, more than a whole check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from repo_server.access.buckets import Rate

PREFIX = "{repo-server}"
"""Of every key; the braces keep them on one node of a Redis cluster."""
PATIENCE_SECONDS = 0.5
_AT_ONCE = 100
"""Keys of one call, during which neither Redis nor the event loop does anything else: less than a millisecond."""
_MOST_DEBT = 4
"""Times its own time a bucket may be overdrawn; more is a clock that was put back."""
_TAKE = f"""
local cost, seconds, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local refused = {{}}
for i, key in ipairs(KEYS) do
  local full_at = math.max(tonumber(redis.call('GET', key) or 0), now) + ARGV[3 + i] * cost
  full_at = math.min(full_at, now + {_MOST_DEBT} * seconds)
  redis.call('SET', key, string.format('%.6f', full_at), 'PX', math.ceil((full_at - now) * 1000))
  if full_at - now > room then
    refused[#refused + 1] = {{i, tostring(full_at - now - room)}}
  end
end
return refused
"""


class RedisAway(Exception):
    """Redis does not answer, not in time, or not as expected."""


@dataclass(slots=True)
class RedisBuckets:
    """A connection to Redis. Every method that asks raises ``RedisAway``."""

    url: str
    _client: Any = None
    _take: Any = None

    def open(self) -> None:
        """Prepare; connects when it is first needed. Raise ``ValueError`` for a URL that is none."""
        # Only servers that share their limits need the library.
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        try:
            self._client = redis.asyncio.from_url(
                client_url(self.url),
                socket_timeout=PATIENCE_SECONDS,
                socket_connect_timeout=PATIENCE_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ValueError(f"--redis-url: {error}") from None
        self._take = self._client.register_script(_TAKE)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.aclose()

    async def ping(self) -> None:
        """Ask whether it is there."""
        await _asked(self._client.ping())

    async def take(self, kind: str, rate: Rate, counts: Mapping[str, int]) -> dict[str, float]:
        """Take so many out of each key's bucket; return in how many seconds there is one again, where there is none."""
        cost = rate.seconds / rate.count
        # As in ``Buckets``: a hair more than exact, so that the last of the burst is not lost to rounding.
        sizes = (cost, rate.seconds, rate.seconds - cost * 0.999)
        refused: dict[str, float] = {}
        for part in _parts(counts):
            keys = [f"{PREFIX}:{kind}:{key}" for key in part]
            found = await _asked(self._take(keys=keys, args=[*sizes, *(counts[key] for key in part)]))
            refused |= {part[index - 1]: float(wait) for index, wait in found}
        return refused

    async def remember(self, kind: str, keys: Iterable[str], seconds: int) -> None:
        """Remember that there are these keys, for so long."""
        for part in _parts(keys):
            pipeline = self._client.pipeline(transaction=False)
            for key in part:
                pipeline.set(f"{PREFIX}:{kind}:{key}", 1, ex=seconds)
            await _asked(pipeline.execute())

    async def remembered(self, kind: str, keys: Iterable[str]) -> set[str]:
        """Return which of these keys are remembered."""
        found: set[str] = set()
        for part in _parts(keys):
            values = await _asked(self._client.mget([f"{PREFIX}:{kind}:{key}" for key in part]))
            found |= {key for key, value in zip(part, values, strict=True) if value is not None}
        return found


def client_url(url: str) -> str:
    """Return a ``--redis-url`` as the library ``redis`` writes it."""
    return url.removeprefix("redis+")


def _parts(keys: Iterable[str]) -> Iterator[list[str]]:
    whole = list(keys)
    return (whole[start : start + _AT_ONCE] for start in range(0, len(whole), _AT_ONCE))


async def _asked(question: Awaitable[Any]) -> Any:
    from redis.exceptions import RedisError

    try:
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            return await question
    except (RedisError, OSError, TimeoutError) as error:
        raise RedisAway(str(error) or "too slow") from error
