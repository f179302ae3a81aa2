"""Servers of one package file, and a folder to download it into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agent_http import ScriptedServer, scripted_server
from support.downloads import file_server


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server(file_server()) as made:
        yield made


@pytest.fixture
def mirror() -> Iterator[ScriptedServer]:
    with scripted_server(file_server()) as made:
        yield made


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder
