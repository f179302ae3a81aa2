"""Runs the product's own programs as a user would: by name, in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def run(program: str, *arguments: str | Path, expect: int | None = 0, timeout: float = 90) -> str:
    """Run a program of the venv and return its output; another exit code than expected fails the test."""
    result = subprocess.run(
        [BIN / program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "200"},
    )
    said = f"{program} {' '.join(map(str, arguments))} ended with {result.returncode}\n{result.stdout}{result.stderr}"
    assert expect is None or result.returncode == expect, said
    return result.stdout


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
