"""``make crash``: the agent killed, refused by the disk, and cut off from power, at every call it makes (promise 1)."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys

from crash.bench import Bench
from crash.matrix import Matrix, Wanted, remove, report, scratch
from crash.shop import Shop
from crash.tables import basic_tables, recovery_tables, with_calls
from crash.trials import KINDS

BASIC = ("update", "rollback", "reinstall", "uninstall", "install")


_APART = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
_IS_APART = "COMMANDIT_CRASH_APART"


def main() -> int:
    """Run the trials that the command line names; return 1 if any failed."""
    options = _options()
    _go_apart()
    # The first process of a namespace does not end by itself when it is told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = scratch()
    bench = Bench(folder / "bench-0")
    try:
        with Shop.open(folder / "shop") as shop:
            names = options.table or BASIC
            basic = {name.partition("-")[0] for name in names}
            tables = {table.name: table for table in basic_tables(bench, shop, basic)}
            chosen = {name: table for name, table in tables.items() if name in names}
            for name in ("update", "rollback"):
                if name in tables:
                    for recovery in recovery_tables(tables[name]):
                        if recovery.name in names or (name in names and (options.recoveries or not options.table)):
                            chosen[recovery.name] = with_calls(bench, recovery)
            bench.clear()
            matrix = Matrix(folder, shop, chosen)
            kinds = tuple(options.kind or KINDS)
            matrix.plan(Wanted(kinds, options.at, options.sample, options.shift, options.step))
            return 1 if report(matrix, options.jobs) else 0
    finally:
        bench.clear()
        remove(folder)


def _go_apart() -> None:
    """See no other process, where the system allows it: the agent looks through all of them, again and again."""
    if _IS_APART in os.environ or not shutil.which(_APART[0]):
        return
    if subprocess.run([*_APART, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[_IS_APART] = "1"
        os.execvp(_APART[0], [*_APART, sys.executable, "-m", "crash", *sys.argv[1:]])  # noqa: S606 -- ourselves


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--table", action="append", help=f"one of {', '.join(BASIC)}, or update-STEP, rollback-STEP")
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--at", help="one call, or one image, as a failure names it")
    parser.add_argument("--step", help="only the calls of one step of a sequence, such as commit")
    parser.add_argument(
        "--sample", type=int, help="so many points per table and kind; without it all, of recoveries 40"
    )
    parser.add_argument("--shift", type=int, default=0, help="where the sample begins")
    parser.add_argument(
        "--recoveries", action="store_true", help="also the recoveries from each step of the tables named"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
