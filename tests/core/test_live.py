"""What is in force: replaced by one assignment, and numbered by changes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from core.making import NOW, catalogue, release

from repo_server.core.model import Problem
from repo_server.tree.live import Live, ScanResult
from repo_server.tree.treeio import FileIdentity


def found(*versions: str, problems: tuple[Problem, ...] = (), ino: int = 1) -> ScanResult:
    identities = {f"service-linux-amd64-{text}.tar.gz": FileIdentity(1, ino, 3, 0, 0) for text in versions}
    return ScanResult(catalogue(release("service", text) for text in versions), problems, identities)


def test_asking_before_the_first_scan_is_a_programming_error() -> None:
    live = Live()
    assert not live.ready
    with pytest.raises(RuntimeError, match="no scan has finished"):
        _ = live.current


def test_the_generation_grows_with_every_change_and_only_then() -> None:
    live = Live()
    first = live.replace(found("1.0.0"), NOW)
    assert (first.generation, first.since, live.ready) == (1, NOW, True)
    later = NOW + timedelta(minutes=1)
    assert live.replace(found("1.0.0"), later) is first is live.current
    assert live.replace(found("1.0.0", "1.1.0"), later).generation == 2
    assert live.current.since == later
    assert live.replace(found("1.0.0", "1.1.0", ino=2), later).generation == 3
    problem = Problem("x", "unrecognised_name", "…", NOW)
    assert live.replace(found("1.0.0", "1.1.0", problems=(problem,), ino=2), later).generation == 4


def test_a_reader_keeps_the_snapshot_that_it_took() -> None:
    live = Live()
    live.replace(found("1.0.0"), NOW)
    taken = live.current
    live.replace(found("2.0.0"), NOW)
    assert [str(item.version) for item in taken.catalogue] == ["1.0.0"]
    assert [str(item.version) for item in live.current.catalogue] == ["2.0.0"]
