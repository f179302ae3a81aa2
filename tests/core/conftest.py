"""How hypothesis runs: without a time limit per example, which two busy cores would break by chance.

``pytest --hypothesis-profile thorough`` searches longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from core.files import DEEP
from hypothesis import HealthCheck, settings

settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("steady"), max_examples=5000)
if settings.get_current_profile_name() == "default":
    settings.load_profile("steady")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree with one file, as deep as files may lie."""
    root = tmp_path / "downloads"
    (root / DEEP).parent.mkdir(parents=True)
    (root / DEEP).write_bytes(b"beta\n")
    return root
