"""``make serve``: a tree with keys of its own if there is none, the server on it, and what to do next.

The keys made here have no passphrase: they are for trying things out on one machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent

NEXT = """\
The tree is {tree}/, its keys are in {keys}/ (without passphrase: for trying out only).
Release something, in another terminal:

  {bin}/repotool pack tools/examples/hello
  {bin}/repotool publish service-linux-amd64-1.0.0.tar.gz --tree {tree} --key {keys}/release.pem --channel beta
  {bin}/repotool promote 1.0.0 --tree {tree}

or by hand: drop a file named <component>-<os>-<arch>-<version><ext> into {tree}/, then

  {bin}/repotool sign {tree}/FILE --tree {tree} --key {keys}/release.pem      # writes FILE.sig and FILE.sha256

Ask what an agent would be offered:

  curl -s http://127.0.0.1:{port}/v1/check -H 'Content-Type: application/json' -d '
    {{"updater_version": "1.0.0", "os": "linux", "arch": "amd64", "release_channel": "stable",
     "components": [{{"name": "service", "version": ""}}]}}'

What is not offered, and why:  {bin}/repotool doctor --tree {tree}
"""


def main() -> None:
    """Make the tree if it is missing, say what to drop where, and become the server."""
    parser = argparse.ArgumentParser(description="Run the repository server on a tree of its own.")
    parser.add_argument("--tree", type=Path, default=Path("downloads"))
    parser.add_argument("--state", type=Path, default=Path("state"))
    parser.add_argument("--keys", type=Path, default=Path("keys"))
    parser.add_argument("--port", type=int, default=8470)
    options = parser.parse_args()
    if not any((options.tree / "metadata").glob("*.root.json")):
        command = [BIN / "repotool", "init", options.tree, "--keys", options.keys, "--no-passphrase"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    options.state.mkdir(mode=0o700, exist_ok=True)
    print(NEXT.format(tree=options.tree, keys=options.keys, bin=os.path.relpath(BIN), port=options.port), flush=True)
    arguments = ["--tree", options.tree, "--state", options.state, "--port", str(options.port)]
    os.execv(BIN / "repo-server", [BIN / "repo-server", "serve", *arguments])


if __name__ == "__main__":
    main()
