"""Machines with a real booted systemd, for the tests that ask for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine import Machine, base_system, cache_folder, machine_on, why_not


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest) -> Path:
    """Make the files of a minimal Debian, once."""
    return base_system(cache_folder(request.config))


@pytest.fixture
def machine(base: Path, tmp_path: Path) -> Iterator[Machine]:
    """Give a machine of one's own, switched off."""
    with machine_on(base, tmp_path / "machine") as machine:
        yield machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a machine where none can be booted, and give booting its time."""
    reason = why_not()
    for item in items:
        if "machine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(600))
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
