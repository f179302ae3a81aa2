"""The real server goes away in the middle of an update, and comes back (design §8, promise 3)."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from support.components import Package
from support.endpoints import AGENT, Endpoint, endpoint_in, wait_until
from support.server import RunningServer, running
from support.trees import Tree

HOOK = "#!/bin/sh\ntouch '{folder}/waiting'\nuntil test -e '{folder}/go'; do sleep 0.05; done\n"


def add(tree: Tree, *packages: Package) -> None:
    for package in packages:
        tree.add(package.name, package.build())


def install(endpoint: Endpoint, server: RunningServer, tree: Tree) -> None:
    endpoint.run(
        "install", "--server", server.url, "--root", tree.root / "metadata" / "1.root.json",
        "--components", "service,probe", "--service-manager", "process",
    )  # fmt: skip
    assert endpoint.installed() == {"probe": "1.0.0", "service": "1.0.0"}


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_server_that_is_lost_after_the_download_takes_no_update_back(tmp_path: Path) -> None:
    """Only what a component says of itself counts; the report waits, and every log has the attempt under one id."""
    tree = Tree(tmp_path / "tree")
    add(tree, *(Package(name, "1.0.0") for name in ("service", "probe")))
    with endpoint_in(tmp_path / "endpoint") as endpoint:
        with running(tree.root, tmp_path / "before", "--insecure-no-auth") as server:
            install(endpoint, server, tree)
            hook = {"hooks/pre": HOOK.format(folder=tmp_path)}
            add(tree, Package("probe", "1.1.0"))
            add(tree, Package("service", "1.1.0", hooks='pre_install = ["hooks/pre"]', hook_files=hook))
            offer = {"service": "1.1.0", "probe": "1.1.0"}
            have = [{"name": name, "version": "1.0.0"} for name in offer]
            wait_until(lambda: server.offered(components=have) == offer, "both are offered")
            with subprocess.Popen(
                [*AGENT, "--root-dir", str(endpoint.root), "once"], stdout=subprocess.DEVNULL
            ) as agent:
                wait_until((tmp_path / "waiting").exists, "the update is under way")
                server.stop(signal.SIGKILL)
                (tmp_path / "go").touch()
                assert agent.wait(100) == 0
        assert endpoint.installed() == endpoint.versions() == offer
        assert endpoint.runs_live("service")
        assert endpoint.runs_live("probe")
        assert "NETWORK" in endpoint.once(expect=1).stderr
        assert endpoint.versions() == offer, "a cycle that finds no server changes nothing either"
        assert endpoint.status()["installed_components"] == [
            {"name": "probe", "version": "1.1.0"},
            {"name": "service", "version": "1.1.0"},
        ]
        # The first server had no database, and asked to be sent reports a minute later.
        (endpoint.paths.state / "schedule.json").unlink()
        with running(tree.root, tmp_path / "after", "--insecure-no-auth", "--port", str(server.port), database=True):
            endpoint.once()
            assert list(endpoint.paths.spool.iterdir()) == []
        ids = {line["attempt_id"] for line in logged(endpoint.paths.log) if line.get("to_version") == "1.1.0"}
        (report,) = (line for line in logged(tmp_path / "after" / "audit.log") if line["path"] == "/v1/status")
        assert len(ids) == 1, "steps, hooks and what is installed"
        assert ids < set(report["request"]["attempts"])
        assert report["result"]["accepted"] == 4
