"""What the tests of single files in a tree share."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from repo_server.tree.treeio import read_small

DEEP = "2026/q4/november/service-linux-amd64-1.2.3.channel"
"""The file that the fixture ``tree`` has."""
SECOND = 10**9


def python(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a real Python on a few lines of code."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def read(root: Path, relative: str, limit: int = 64) -> bytes:
    return read_small(root, relative, limit)[0]
