"""One server with PostgreSQL for the tests that only ask; others start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.databases import Cluster, TestDatabase, cluster
from support.server import RunningServer, running
from support.serving import CONTENT, SERVICE, Served, fill
from support.trees import Tree


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a server with PostgreSQL on a filled tree; tests must not change the tree."""
    folder = tmp_path_factory.mktemp("served")
    tree = fill(Tree(folder / "tree"))
    with running(tree.root, folder / "state", database=True) as server:
        yield Served(server, tree)


@pytest.fixture
def server(served: Served) -> RunningServer:
    return served.server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """Run one PostgreSQL for all tests that want a database without a server."""
    with cluster() as running_cluster:
        yield running_cluster


@pytest.fixture
def database(postgres: Cluster) -> TestDatabase:
    """Make an empty database."""
    return postgres.new()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make a tree of the test's own, with one release."""
    tree = Tree(tmp_path / "tree")
    tree.add(SERVICE, CONTENT)
    return tree
