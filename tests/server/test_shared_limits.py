"""Several servers share their limits through a real Redis, and do without it when they must (NFR-SRV-009)."""

from __future__ import annotations

import signal
import time
import uuid
from pathlib import Path

from support.redis import redis
from support.server import RunningServer, check_body, running, wait_until
from support.trees import Tree


def asks(server: RunningServer, number: int) -> int:
    return server.post("/v1/check", check_body(device_id=str(uuid.UUID(int=number)))).status


def away(server: RunningServer) -> bool:
    return "shared_limits_away" in [item["code"] for item in server.ready()["conditions"]]


def test_what_a_device_asked_one_server_counts_at_the_other_until_redis_is_gone(tree: Tree, tmp_path: Path) -> None:
    with redis(tmp_path) as (port, process):
        options = ("--redis-url", f"redis://127.0.0.1:{port}", "--limit-device", "3/1h")
        with (
            running(tree.root, tmp_path / "one", *options) as one,
            running(tree.root, tmp_path / "two", *options) as two,
        ):
            assert [asks(one, 1), asks(two, 1), asks(one, 1)] == [200, 200, 200]
            assert [asks(one, 1), asks(two, 1)] == [429, 429]
            assert [asks(one, 2), asks(two, 2)] == [200, 200]
            process.kill()
            process.wait()
            # Each has counted by itself all the time, and knows of one request of the second device.
            for server in (one, two):
                assert [asks(server, 2) for _ in range(3)] == [200, 200, 429]
            wait_until(lambda: away(one) and away(two), "both say so", one.log_path)
            assert "each server counts for itself" in one.log
            with redis(tmp_path, port):
                wait_until(lambda: not away(one) and not away(two), "both share again", one.log_path)
                assert [asks(one, 3), asks(two, 3), asks(one, 3), asks(two, 3)] == [200, 200, 200, 429]


def test_a_redis_that_hangs_costs_a_moment_and_not_the_service(tree: Tree, tmp_path: Path) -> None:
    with redis(tmp_path) as (port, process):
        options = ("--redis-url", f"redis://127.0.0.1:{port}")
        with running(tree.root, tmp_path / "one", *options) as server:
            assert asks(server, 1) == 200
            process.send_signal(signal.SIGSTOP)
            try:
                started = time.monotonic()
                assert [asks(server, number) for number in range(2, 40)] == [200] * 38
                # Waiting for each would be 19 seconds.
                assert time.monotonic() - started < 12
                assert away(server)
            finally:
                process.send_signal(signal.SIGCONT)
            wait_until(lambda: not away(server), "it is shared again", server.log_path)


def test_a_redis_that_is_not_there_at_the_start_is_said(tree: Tree, tmp_path: Path) -> None:
    with running(tree.root, tmp_path / "one", "--redis-url", "redis://127.0.0.1:1") as server:
        assert asks(server, 1) == 200
        assert away(server)
