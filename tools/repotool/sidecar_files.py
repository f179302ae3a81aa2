"""Reading sidecars, in a tree or beside a file that is to go there (L6, L29)."""

from __future__ import annotations

import os
from pathlib import Path

from repo_server.core.names import SidecarKind
from repo_server.core.sidecars import MAX_BYTES
from repo_server.tree import treeio
from repotool.digests import open_source
from repotool.errors import ToolError


def read_sidecar(path: Path, kind: SidecarKind) -> bytes | None:
    """Return the content of a release file's sidecar, ``None`` if there is none; raise ``TreeError``."""
    try:
        return treeio.read_small(path.parent, f"{path.name}{kind}", MAX_BYTES)[0]
    except FileNotFoundError:
        return None


def read_given(path: Path) -> bytes:
    """Return the content of a file that is to become a sidecar; raise ``ToolError``."""
    with os.fdopen(open_source(path), "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ToolError(f"{path} is larger than {MAX_BYTES} bytes, more than a sidecar may have (L6)")
    return data
