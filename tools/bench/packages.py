"""Real packages for the benchmark of the agent: a program that sleeps, and as many bytes as asked for."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

from tools.bench.trees import BIN

FILE_BYTES = 1_000_000

MANIFEST = """\
component = "service"
version = "{version}"
os = "linux"
arch = "{arch}"

[service]
kind = "process"
command = ["bin/serve"]

[health]
kind = "command"
command = ["bin/check"]
"""


def publish(home: Path, tree: Path, version: str, arch: str, size: int) -> str:
    """Pack ``size`` bytes (compressed) in files of a megabyte, and publish them to stable; return the file's name."""
    source = home / f"package-{version}"
    payload = source / "files"
    (payload / "bin").mkdir(parents=True)
    (source / "package.toml").write_text(MANIFEST.format(version=version, arch=arch))
    (payload / "VERSION").write_text(version)
    for name, script in {"serve": "#!/bin/sh\nexec sleep 86400\n", "check": "#!/bin/sh\nexit 0\n"}.items():
        (payload / "bin" / name).write_text(script)
        (payload / "bin" / name).chmod(0o755)
    for number in range(size // FILE_BYTES):
        # Base64 of random bytes: deflate has work to do, and gets it back to the size that was asked for.
        (payload / f"{number:03}.dat").write_bytes(base64.b64encode(os.urandom(FILE_BYTES)))
    name = f"service-linux-{arch}-{version}.tar.gz"
    archive = home / name
    key = home / "keys" / "release.pem"
    for command in (
        ["pack", source, "-o", archive],
        ["publish", archive, "--tree", tree, "--key", key, "--channel", "stable"],
    ):
        subprocess.run([BIN / "repotool", *command], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(source)
    archive.unlink()
    return name
