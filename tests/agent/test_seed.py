"""A build of the agent that was handed to a machine becomes its component ``updater`` (FR-BST-001)."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest
from simulators.repository import Repository
from support.components import PLATFORM
from support.endpoints import tree_hash
from support.updaters import package_of

from agent.bootstrap import Provision, provision
from agent.cli.world import SystemClock
from agent.config import Config
from agent.endpoint import Endpoint, World, put_together
from agent.errors import AgentError
from agent.manifest import load_manifest
from agent.paths import Paths
from agent.recover import settle
from agent.removal import begin_removal
from agent.seed import seed
from agent.verify import verify
from repo_server.core.version import Version


def endpoint_of(root: Path, program: Path | None = None) -> Endpoint:
    paths = Paths(root)
    paths.create()
    world = World(SystemClock(), random.random, lambda: str(uuid.uuid4()), PLATFORM, "1.0.0", {}, program)
    return put_together(paths, Config(), world)


def build(folder: Path, version: str) -> dict[str, Path]:
    """Return a build: two files that lie somewhere, and where they belong."""
    folder.mkdir(exist_ok=True)
    (folder / "program").write_text(f"#!/bin/sh\necho {version}\n")
    (folder / "library").write_text(version)
    return {"bin/commandit-updater": folder / "program", "bin/_internal/library": folder / "library"}


def install(endpoint: Endpoint, folder: Path, version: str) -> bool:
    """Seed a build; return whether it is what is installed then."""
    done = seed(endpoint, package_of(version, "").manifest, build(folder, version)) is not None
    manifest = load_manifest(endpoint.paths.manifest).manifest
    live = endpoint.paths.install("updater")
    if done:
        assert manifest.version_of("updater") == Version(version)
        assert (live / "bin/commandit-updater").stat().st_mode & 0o777 == 0o755
        assert (live / "bin/_internal/library").read_text() == version
    assert [one.same for one in verify(endpoint, ("updater",))] == [True]
    assert not list(endpoint.paths.install_root.glob(".*"))
    return done


def test_a_build_installs_itself_replaces_an_older_one_and_never_a_newer_one(tmp_path: Path) -> None:
    endpoint = endpoint_of(tmp_path / "endpoint")
    assert install(endpoint, tmp_path / "a", "1.1.0")
    assert not install(endpoint, tmp_path / "a", "1.1.0")
    assert install(endpoint, tmp_path / "b", "1.2.0")
    assert not install(endpoint, tmp_path / "a", "1.1.0")
    records = endpoint.spool.pending().records
    assert sorted((one.current_version or "", one.requested_version, one.status) for one in records) == [
        ("", "1.1.0", "success"),
        ("1.1.0", "1.2.0", "success"),
    ]
    assert {one.trigger_source for one in records} == {"install"}


def test_one_whose_program_is_gone_is_installed_again(tmp_path: Path) -> None:
    endpoint = endpoint_of(tmp_path / "endpoint")
    assert install(endpoint, tmp_path / "a", "1.1.0")
    (endpoint.paths.install("updater") / "bin/commandit-updater").unlink()
    assert install(endpoint, tmp_path / "a", "1.1.0")


def test_the_installed_agent_does_not_install_itself(tmp_path: Path) -> None:
    root = tmp_path / "endpoint"
    itself = endpoint_of(root, root / "opt/commandit/updater/bin/commandit-updater")
    assert seed(itself, package_of("1.1.0", "").manifest, build(tmp_path / "a", "1.1.0")) is None


def test_a_build_that_cannot_be_copied_leaves_the_old_agent(tmp_path: Path) -> None:
    endpoint = endpoint_of(tmp_path / "endpoint")
    assert install(endpoint, tmp_path / "a", "1.1.0")
    before = tree_hash(endpoint.paths.install("updater"))
    files = build(tmp_path / "b", "1.2.0")
    for source in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(OSError, match=str(source)):
            seed(endpoint, package_of("1.2.0", "").manifest, {**files, "bin/_internal/gone": source})
        settle(endpoint)
        assert tree_hash(endpoint.paths.install("updater")) == before
        assert not endpoint.paths.journal.exists()
    assert install(endpoint, tmp_path / "b", "1.2.0")


def test_the_agent_itself_is_not_uninstalled_by_name(tmp_path: Path) -> None:
    endpoint = endpoint_of(tmp_path / "endpoint")
    assert install(endpoint, tmp_path / "a", "1.1.0")
    with pytest.raises(AgentError, match="uninstall without names"):
        begin_removal(endpoint, ("updater",), purge=False)


def test_a_root_that_was_built_in_serves_a_machine_without_one_and_no_other(tmp_path: Path) -> None:
    """FR-BST-002."""
    with Repository(tmp_path / "one") as one, Repository(tmp_path / "other") as other:
        mine, built_in = one.root_json.read_bytes(), other.root_json.read_bytes()
    for name, given, expected in (("none", None, built_in), ("given", one.root_json, mine)):
        paths = Paths(tmp_path / name)
        paths.create()
        provision(paths, Provision(given, built_in_root=built_in), str(uuid.uuid4()))
        assert paths.root_json.read_bytes() == expected
        provision(paths, Provision(built_in_root=mine), str(uuid.uuid4()))
        assert paths.root_json.read_bytes() == expected, "what is there stays"
