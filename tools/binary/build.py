"""``make agent-binary``: the agent as one executable, and as the package folder of the component ``updater``.

For the machine that it runs on; agent/README.md says how the builds for the other systems are made.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from agent.bundle import own_version
from agent.platform.detect import this_platform
from agent.trust import parse_root
from repo_server.core.package import parse_package_toml

HERE = Path(__file__).resolve().parent
FOLDER = "installed"
"""Where PyInstaller puts the installed form, before it becomes the payload of a package."""
PACKAGE = """\
component = "updater"
version = "{version}"
os = "{os}"
arch = "{arch}"
payload = "files"

# The agent that is installed watches this one on trial: start, self-check with the server, and so long without an end.
[health]
kind = "process"
timeout_seconds = 60
probation_seconds = 10
"""


def main() -> None:
    """Build into ``--out``: ``commandit-updater`` and ``updater/``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default=own_version(), help="the agent's version (default: that of this checkout)")
    parser.add_argument("--root-json", type=Path, help="root of trust to build in, used by install without --root")
    parser.add_argument("--out", type=Path, default=Path("dist"))
    given = parser.parse_args()
    platform = this_platform()
    package = PACKAGE.format(version=given.version, os=platform.os, arch=platform.arch)
    parse_package_toml(package.encode())
    with tempfile.TemporaryDirectory(prefix="agent-binary-") as folder:
        built, work = Path(folder) / "built", Path(folder) / "work"
        built.mkdir()
        (built / "version").write_text(f"{given.version}\n")
        (built / "package.toml").write_text(package)
        if given.root_json is not None:
            root = given.root_json.read_bytes()
            parse_root(root)
            (built / "root.json").write_bytes(root)
        command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN",
                   "--distpath", str(given.out), "--workpath", str(work), str(HERE / "agent.spec")]  # fmt: skip
        subprocess.run(command, check=True, env={**os.environ, "AGENT_BUILT": str(built), "AGENT_FOLDER": FOLDER})
    updater = given.out / "updater"
    shutil.rmtree(updater, ignore_errors=True)
    (updater / "files").mkdir(parents=True)
    (given.out / FOLDER).rename(updater / "files" / "bin")
    (updater / "package.toml").write_text(package)
    print(f"{given.out / 'commandit-updater'}: {given.version} for {platform}, one executable with install in it")
    print(f"{updater}: the component updater; make agent-package packs it")


if __name__ == "__main__":
    main()
