"""Two servers on one tree and one PostgreSQL, their limits in one Redis, behind nginx: one dies, nobody notices."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from simulators.repository import Repository
from support.components import Package
from support.databases import cluster
from support.endpoints import AGENT, endpoint_in
from support.front import needs_nginx, nginx
from support.load import load
from support.programs import free_port
from support.redis import redis
from support.server import running, wait_until

pytestmark = [needs_nginx, pytest.mark.slow]


def test_one_of_two_servers_is_killed_and_agents_are_updated_without_an_error(tmp_path: Path) -> None:
    """NFR-REL-004, design §7: what an agent retries by itself is enough; every record is stored once."""
    port = free_port()
    with (
        Repository(tmp_path / "tree") as repository,
        cluster() as postgres,
        redis(tmp_path) as (redis_port, _),
        endpoint_in(tmp_path / "endpoint") as endpoint,
    ):
        tree, database = repository.tree.root, postgres.new()
        options = ("--database-url", database.url, "--redis-url", f"redis://127.0.0.1:{redis_port}")
        options += ("--trusted-proxy", "127.0.0.1", "--x-accel", "/release-files/")
        options += ("--base-url", f"http://127.0.0.1:{port}")
        publish(repository, "1.0.0")
        with (
            running(tree, tmp_path / "one", *options, database=True) as one,
            running(tree, tmp_path / "two", *options, database=True) as two,
            nginx(tmp_path / "nginx", (one.port, two.port), tree, port) as url,
        ):
            front: Any = SimpleNamespace(url=url, root_json=repository.root_json)
            endpoint.install(front, "service")
            publish(repository, "1.1.0")
            for server in (one, two):
                wait_until(lambda s=server: s.offered() == {"service": "1.1.0"}, "both offer it", server.log_path)
            with load(url, clients=4, reports=True) as asking:
                asking.wait_for(100)
                updating = subprocess.Popen([*AGENT, "--root-dir", str(endpoint.root), "once"])
                asking.wait_for(20)
                assert one.stop(signal.SIGKILL) == -signal.SIGKILL
                asking.wait_for(300)
                assert updating.wait(90) == 0, endpoint.log()
            assert asking.errors == []
            assert endpoint.installed() == {"service": "1.1.0"}
            assert endpoint.runs_live("service")
            stored = [row[0] for row in database.query("SELECT record_id::text FROM agent_update_status_log")]
            assert len(stored) == len(set(stored))
            assert set(stored) >= asking.records
            assert not [item for item in two.ready()["conditions"] if item["code"] != "tokens_not_reloaded"]


def publish(repository: Repository, version: str) -> None:
    package = Package("service", version)
    repository.publish(package.name, package.build())
