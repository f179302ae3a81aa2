"""``make bench`` or ``python -m tools.bench [NAME…]``: run benchmarks and print their ratios."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.bench import agent, check, download, fleet, promotion, scan, shared
from tools.bench.result import Result

ALL: dict[str, Callable[[Path], list[Result]]] = {
    "agent": agent.run,
    "check": check.run,
    "download": download.run,
    "fleet": fleet.run,
    "promotion": promotion.run,
    "scan": scan.run,
    "shared": shared.run,
}


def main() -> int:
    """Run the named benchmarks (all without a name); exit 1 when a budget is not met."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    names = parser.parse_args().names or list(ALL)
    unknown = [name for name in names if name not in ALL]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(ALL)}")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.release()}")
    met = True
    for name in names:
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
            for result in ALL[name](Path(folder)):
                print(result.line(), flush=True)
                met = met and result.met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
