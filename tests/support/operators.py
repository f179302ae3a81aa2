"""Runs the real ``repotool`` as an operator does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repo_server.tree.treeio import LOCK_NAME
from support.prepared import can_be_prepared, run_prepared

REPOTOOL = Path(sys.executable).parent / "repotool"
QUIET = {name: value for name, value in os.environ.items() if not name.startswith("REPOTOOL")}


@dataclass
class Operator:
    """Somebody at a shell, with a home of their own."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def attempt(
        self, *arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run repotool and return what came of it."""
        environment = {
            **QUIET, "HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache"), **self.env, **env,
        }  # fmt: skip
        folder = cwd or self.home
        if can_be_prepared(environment):
            return run_prepared("repotool.cli:main", str(REPOTOOL), arguments, env=environment, cwd=folder, stdin=stdin)
        return subprocess.run(
            [REPOTOOL, *arguments], input=stdin, capture_output=True, env=environment, cwd=folder, timeout=100,
            check=False,
        )  # fmt: skip

    def run(self, *arguments: str | Path, **env: str) -> str:
        """Run repotool, which must succeed; return its output."""
        done = self.attempt(*arguments, **env)
        assert done.returncode == 0, (arguments, done.returncode, done.stderr.decode())
        return done.stdout.decode()

    def refused(self, code: int, *arguments: str | Path, **env: str) -> str:
        """Run repotool, which must fail with an exit code and one message, never a traceback; return the message."""
        done = self.attempt(*arguments, **env)
        message = done.stderr.decode()
        assert done.returncode == code, (arguments, done.returncode, done.stdout.decode(), message)
        assert "Traceback" not in message
        assert message.strip()
        return message

    def facts(self, *arguments: str | Path, **env: str) -> dict[str, Any]:
        """Run repotool with ``--json`` and return what it says."""
        return dict(json.loads(self.run(*arguments, "--json", **env)))


@dataclass
class Shop(Operator):
    """An operator with a tree and its keys."""

    @property
    def tree(self) -> Path:
        """The downloads tree."""
        return self.home / "tree"

    @property
    def keys(self) -> Path:
        """The folder with the keys."""
        return self.home / "keys"

    @property
    def key(self) -> Path:
        """The release key."""
        return self.keys / "release.pem"

    def package(self, version: str = "1.2.3", component: str = "service", *, extra: str = "", text: str = "x") -> Path:
        """Pack a small package and return the archive."""
        folder = package_folder(self.home / "sources" / f"{component}-{version}", version, component, extra, text)
        self.run("pack", folder, "-o", self.home / "out")
        return self.home / "out" / f"{component}-linux-amd64-{version}.tar.gz"


def package_folder(
    folder: Path, version: str = "1.2.3", component: str = "service", extra: str = "", text: str = "x"
) -> Path:
    """Make a folder that can be packed."""
    program = folder / "files" / "bin" / "serve"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho {text}\n")
    program.chmod(0o755)
    (folder / "files" / "readme.txt").write_text("read me\n")
    (folder / "package.toml").write_text(
        f'component = "{component}"\nversion = "{version}"\nos = "linux"\narch = "amd64"\npayload = "files"\n{extra}\n'
        '[service]\nkind = "process"\ncommand = ["bin/serve"]\n'
    )
    return folder


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file in a folder but the locks: content and modification time."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK_NAME
    }
