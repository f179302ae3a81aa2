"""What this build of the agent is: its version, what was built into it, and how it was started.

A build (``make agent-binary``) carries its facts in ``agent/built/``; without that it is a Python environment.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path

from agent.platform.spawn import own_program

_BUILT = Path(__file__).resolve().parent / "built"
_SEED = "seed"
"""Folder of the single executable that holds the program of the installed form."""
_INTERNAL = "_internal"
"""Folder beside the installed program that holds everything else (PyInstaller's name)."""


def own_version() -> str:
    """Return this agent's version."""
    built = _read("version")
    if built is not None:
        return built.decode().strip()
    try:
        return importlib.metadata.version("commandit-updates")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0"


def built_in_root() -> bytes | None:
    """Return the ``root.json`` that was built in, ``None`` if there is none (FR-BST-002)."""
    return _read("root.json")


def built_in_package() -> str | None:
    """Return the ``package.toml`` of the component ``updater`` that this build is; ``None``: it is no build."""
    text = _read("package.toml")
    return None if text is None else text.decode()


def program_path(environment: Mapping[str, str]) -> Path | None:
    """Return the program that this agent was started as; ``None``: a Python environment."""
    found = own_program(environment)
    return None if found is None else Path(found)


def installed_form() -> Mapping[str, Path]:
    """Return what belongs into the install folder of ``updater``: path below it → this build's file."""
    program = Path(sys.executable)
    if (seed := _BUILT.parent.parent / _SEED / program.name).exists():
        # The single executable has unpacked itself; the program of the installed form is one of its files.
        inside = _BUILT.parent.parent
        files = {f"bin/{_INTERNAL}/{path}": inside / path for path in _files(inside) if path.parts[0] != _SEED}
        return {f"bin/{program.name}": seed, **files}
    return {f"bin/{path.as_posix()}": program.parent / path for path in _files(program.parent)}


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _read(name: str) -> bytes | None:
    try:
        return (_BUILT / name).read_bytes()
    except FileNotFoundError:
        return None
