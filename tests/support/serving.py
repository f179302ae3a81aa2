"""What the tests of the server share: a tree with a release of every kind, and a look into the database."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from support.server import RunningServer
from support.trees import Tree

SERVICE = "service-linux-amd64-1.2.3.tar.gz"
BETA = "service-linux-amd64-1.3.0.tar.gz"
RECALLED = "service-linux-amd64-1.1.0.tar.gz"
NESTED = "2026/q4/ui-linux-amd64-2.0.0.tar.gz"
RAMPED = "probe-linux-amd64-3.0.0.tar.gz"
NOBODY_YET = '{"start": "2020-01-01T00:00:00Z", "from": 0.0, "to": 0.0}'
CONTENT = bytes(range(256)) * 4096
"""One MiB."""


@dataclass
class Served:
    """A server and the tree that it serves."""

    server: RunningServer
    tree: Tree


def fill(tree: Tree) -> Tree:
    """Put a release of every kind into a tree, and things that are none."""
    tree.add(SERVICE, CONTENT, meta='{"release_notes_url": "https://example.com/1.2.3"}')
    tree.add(BETA, b"beta", channel="beta")
    tree.add(RECALLED, b"recalled", blocked='{"reason": "loses settings"}')
    tree.add("ui-linux-amd64-2.0.0.tar.gz", b"ui", folder="2026/q4")
    tree.add(RAMPED, b"ramped", rollout=NOBODY_YET)
    (tree.root / "service-linux-amd64-9.9.9.tar.gz").write_bytes(b"without sidecars")
    (tree.root / "holiday.jpg").write_bytes(b"not a release")
    (tree.root / "policy").mkdir()
    (tree.root / "policy" / "channels.toml").write_text('[sites]\n"lab" = "beta"\n')
    (tree.root / "commands").mkdir()
    (tree.root / "commands" / "secret.json").write_text("{}")
    return tree


def query(state: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Ask the embedded PostgreSQL of a running server, as its own clients do."""
    descriptor = os.open(state / "postgres", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with psycopg.connect(
            f"host=/proc/self/fd/{descriptor} user=postgres dbname=postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        os.close(descriptor)


def postmaster(state: Path) -> int:
    """Return the process id of a running server's embedded PostgreSQL."""
    return int((state / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])


def lives(pid: int) -> bool:
    """Whether a process exists and is not merely unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def strike(parent: int, how: signal.Signals) -> list[int]:
    """Send a signal to a process and its children; to the parent first, so that it makes no more of them."""
    os.kill(parent, how)
    members = family(parent)
    for pid in members[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
    return members


def resume(members: list[int]) -> None:
    """Let stopped processes go on; some may end as soon as they can."""
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def family(parent: int) -> list[int]:
    """Return a process and its children."""
    found = [parent]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found
