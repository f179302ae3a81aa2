"""Real agents that were copied with their disk, and what the server makes of them (issue: cloned ids)."""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.endpoints import AGENT, Endpoint, endpoint_in
from support.server import RunningServer, wait_until
from support.serving import Served

OTHER_MACHINE = 'mount --bind "$1" /etc/machine-id && shift && exec "$@"'
"""What is another installation to a program and its children: nothing else of the machine changes."""


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[tuple[Endpoint, Endpoint]]:
    with ExitStack() as stack:
        yield stack.enter_context(endpoint_in(tmp_path / "one")), stack.enter_context(endpoint_in(tmp_path / "other"))


def check(server: RunningServer, device_id: str, endpoint: Endpoint, machine_id: Path | None = None) -> None:
    """Have an agent check, and return when the database knows it."""
    elsewhere = () if machine_id is None else ("unshare", "--mount", "sh", "-c", OTHER_MACHINE, "sh", machine_id)
    before = seen(server, device_id)
    endpoint.run("checknow", command=[*map(str, elsewhere), *AGENT])
    wait_until(lambda: seen(server, device_id) != before, "the check is in the database", server.log_path)


def seen(server: RunningServer, device_id: str) -> str:
    return str(server.get(f"/v1/devices/{device_id}").json().get("last_agent_checkin"))


def install(served: Served, endpoint: Endpoint) -> str:
    device_id = str(uuid.uuid4())
    endpoint.run(
        "install", "--server", served.server.url, "--root", served.tree.root / "metadata" / "1.root.json",
        "--components", "", "--device-id", device_id,
    )  # fmt: skip
    wait_until(lambda: seen(served.server, device_id) != "None", "it is known", served.server.log_path)
    return device_id


@pytest.mark.skipif(
    not (sys.platform == "linux" and os.geteuid() == 0 and shutil.which("unshare")), reason="needs root on Linux"
)
def test_a_copied_disk_on_another_machine_is_a_problem_and_one_machine_never_is(
    served: Served, endpoints: tuple[Endpoint, Endpoint], tmp_path: Path
) -> None:
    """Two agents share a device id (4 s, most of it for seven starts of the agent)."""
    server, (one, other) = served.server, endpoints
    device_id = install(served, one)
    shutil.copytree(one.root, other.root)
    machine_id = tmp_path / "machine-id"
    machine_id.write_text(f"{uuid.uuid4().hex}\n")
    check(server, device_id, one)
    row = server.get(f"/v1/devices/{device_id}").json()
    assert len(row["attributes"]["machine"]) == 32
    assert row["seen_machines"] is None
    for n in range(4):
        check(server, device_id, *((other, machine_id) if n % 2 == 0 else (one,)))
    row = server.get(f"/v1/devices/{device_id}").json()
    assert row["shared_id_at"] is not None
    assert len({machine.partition("machine=")[2] for machine in row["seen_machines"]} - {""}) == 2
    problems = {item["code"]: item["message"] for item in server.get("/v1/problems").json()["server"]}
    assert "used by more than one machine" in problems["shared_ids"]
    other.run("install", "--device-id", "new", "--components", "")
    ids = {json.loads(endpoint.paths.config.read_text())["device_id"] for endpoint in endpoints}
    assert len(ids - {device_id}) == 1
