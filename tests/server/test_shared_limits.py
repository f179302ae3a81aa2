"""Several servers share their limits through a real Redis, and do without it when they must (NFR-SRV-009)."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.redis import redis
from support.server import RunningServer, check_body, running, wait_until
from support.trees import Tree

from repo_server.access.buckets import Rate
from repo_server.access.limits import Limits, Rates
from repo_server.access.redisbuckets import RedisBuckets
from repo_server.access.sharedlimits import SharedLimits
from repo_server.core.wire import SECRET_HEADER

SECRET, GUESS = "first-secret-0123456789", "guess"


def asks(server: RunningServer, number: int) -> int:
    return server.post("/v1/check", check_body(device_id=str(uuid.UUID(int=number)))).status


def asks_with(server: RunningServer, secret: str, address: str) -> int:
    headers = {SECRET_HEADER: secret, "x-forwarded-for": address}
    return server.post("/v1/check", check_body(), headers).status


def away(server: RunningServer) -> bool:
    return "shared_limits_away" in [item["code"] for item in server.ready()["conditions"]]


@contextmanager
def two_servers(tree: Tree, folder: Path, port: int, *options: str) -> Iterator[tuple[RunningServer, RunningServer]]:
    """Run two servers that share the Redis on a port."""
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(running(tree.root, folder / name, "--redis-url", f"redis://127.0.0.1:{port}", *options))
            for name in ("one", "two")
        )
        yield one, two


def refused_soon(ask: Callable[[], int], server: RunningServer) -> None:
    """Ask until it is refused: what the other server let through is known a moment later."""
    wait_until(lambda: ask() == 429, "it is refused", server.log_path)


def test_what_a_device_asked_one_server_counts_at_the_other_until_redis_is_gone(tree: Tree, tmp_path: Path) -> None:
    most = 200
    with (
        redis(tmp_path) as (port, process),
        two_servers(tree, tmp_path, port, "--limit-device", f"{most}/1h") as (one, two),
    ):
        assert [asks(one, 1) for _ in range(most)] == [200] * most
        more = list(itertools.takewhile(lambda status: status == 200, (asks(two, 1) for _ in range(most))))
        # What is kept back, a sixteenth, and what comes until Redis has answered, which is milliseconds.
        assert len(more) < most / 2
        assert asks(two, 2) == 200, "another device"
        process.kill()
        process.wait()
        wait_until(lambda: away(one) and away(two), "both say so", one.log_path)
        assert "each server counts for itself" in one.log
        assert asks(two, 1) == 200, "it has counted by itself all the time, and fewer than allowed"
        assert [asks(two, 3) for _ in range(most + 1)] == [200] * most + [429]
        with redis(tmp_path, port):
            wait_until(lambda: not away(one) and not away(two), "both share again", one.log_path)
            assert [asks(two, 4) for _ in range(most)] == [200] * most
            refused_soon(lambda: asks(one, 4), one)


def test_a_redis_that_is_not_there_comes_and_hangs_costs_nobody_anything_and_is_said(
    tree: Tree, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(tree.root, tmp_path / "one", "--redis-url", f"redis://127.0.0.1:{port}") as server:
        wait_until(lambda: asks(server, 1) == 200 and away(server), "it is said", server.log_path)
        with redis(tmp_path, port) as (_, process):
            wait_until(lambda: not away(server), "it is shared", server.log_path)
            process.send_signal(signal.SIGSTOP)
            try:
                wait_until(lambda: asks(server, 1) == 200 and away(server), "it is said again", server.log_path)
            finally:
                process.send_signal(signal.SIGCONT)
            wait_until(lambda: not away(server), "it is shared again", server.log_path)


def test_guesses_count_together_and_close_no_address_from_which_somebody_has_succeeded_anywhere(
    tree: Tree, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text(f"first:{SECRET}\n")
    secrets.chmod(0o600)
    options = ("--secrets", str(secrets), "--trusted-proxy", "127.0.0.1", "--limit-failures", "20/1h")
    with redis(tmp_path) as (port, _), two_servers(tree, tmp_path, port, *options) as (one, two):
        assert asks_with(one, SECRET, "203.0.113.2") == 200
        assert [asks_with(one, GUESS, "203.0.113.1") for _ in range(21)] == [401] * 20 + [429]
        guesses = 1
        while asks_with(two, GUESS, "203.0.113.1") != 429:
            guesses += 1
            time.sleep(0.2)
        assert guesses < 20, "alone it would have listened to so many"
        assert asks_with(two, SECRET, "203.0.113.1") == 429, "nobody there has succeeded"
        assert asks_with(two, SECRET, "203.0.113.3") == 200, "another address"
        assert [asks_with(two, GUESS, "203.0.113.2") for _ in range(21)] == [401] * 20 + [429]
        wait_until(lambda: asks_with(two, SECRET, "203.0.113.2") == 200, "somebody there has succeeded", two.log_path)


def test_redis_is_told_nothing_of_who_asks_little(tmp_path: Path) -> None:
    """Nearly all devices: a sixteenth of a limit is kept back, and told with what comes after it."""

    async def ask(url: str) -> None:
        rates = Rates(None, None, Rate(100, 3600.0), None)
        shared = SharedLimits(url, rates, Limits(rates, random.random))
        shared.open()
        for _ in range(6):
            shared.count_check("203.0.113.1", None, "a")
        await shared._tell(1.0)
        assert await shared._buckets._client.dbsize() == 0
        shared.count_check("203.0.113.1", None, "a")
        await shared._tell(1.0)
        assert await shared._buckets._client.dbsize() == 1
        refused = await shared._buckets.take("device", Rate(100, 3600.0), {"203.0.113.1:a": 93})
        assert refused == {"203.0.113.1:a": pytest.approx(36, abs=1)}, "all seven were told"
        await shared._buckets.close()

    with redis(tmp_path) as (port, _):
        asyncio.run(ask(f"redis://127.0.0.1:{port}"))


def test_what_was_let_through_too_much_is_counted_and_made_up_for(tmp_path: Path) -> None:
    """Batches of several servers may overdraw a bucket; a clock that was put back closes nothing for ever."""

    async def ask(url: str) -> None:
        buckets = RedisBuckets(url)
        buckets.open()
        rate = Rate(10, 100.0)
        assert await buckets.take("device", rate, {"a": 9, "b": 1}) == {}
        refused = await buckets.take("device", rate, {"a": 4, "b": 1})
        assert refused == {"a": pytest.approx(40, abs=1)}, "three are owed, and there is one again after the fourth"
        assert await buckets.take("address", rate, {"a": 1}) == {}, "another kind"
        many = {str(number): 10 for number in range(250)}
        assert (await buckets.take("device", rate, many)).keys() == many.keys()
        assert (await buckets.take("device", rate, {"c": 1000}))["c"] == pytest.approx(310, abs=1)
        await buckets.remember("good", many, 60)
        assert await buckets.remembered("good", [*many, "a"]) == many.keys()
        await buckets.close()

    with redis(tmp_path) as (port, _):
        asyncio.run(ask(f"redis://127.0.0.1:{port}"))
