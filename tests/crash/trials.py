"""One trial each: a fault at one call, or one image after a power cut; then recovery, and what must be true."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from crash import invariants
from crash.bench import Bench, Ran
from crash.cuts import Image
from crash.shop import Shop
from crash.tables import AFTER_THE_CUT, Table, begun_attempt, prepare
from crash.tap import PROCESSES, SINGLE, WRITES, Fault

KINDS = ("kill", "again", "EIO", "ENOSPC", "EACCES", "full", "readonly", "power")
"""``again``: killed, and the recovery killed as well; the rest: see ``tap.py``; ``power``: images."""
_CODES = {"EIO": "IO", "ENOSPC": "DISK_FULL", "EACCES": "PERMISSION", "full": "DISK_FULL", "readonly": "PERMISSION"}
_SERVICES = ("START_FAILED", "STOP_FAILED", "HOOK_FAILED", "HEALTH_FAILED")
_NO_SPACE = frozenset({"open", "mkdir", "symlink", "link", "rename", "replace", "exchange", "fsync", "syncfs"}) | WRITES
_BY_NAME = frozenset({"open", "mkdir", "symlink", "link", "rename", "replace", "exchange", "unlink", "remove", "rmdir",
                      "chmod", "chown", "truncate", "utime", "spawn"})  # fmt: skip
_THEN_EVERY = 4
_MOST_CALLS_OF_A_RECOVERY = 60


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried. ``at``: the number of a call, or the label of an image."""

    table: str
    kind: str
    at: str

    @property
    def command(self) -> str:
        """What tries it again."""
        return f"make crash ARGS='--table {self.table} --kind {self.kind} --at {self.at}'"


def is_possible(name: str, kind: str) -> bool:
    """Whether a system may answer a call so."""
    if kind in {"ENOSPC", "full"}:
        return name in _NO_SPACE
    if kind == "EACCES":
        return name in _BY_NAME
    return kind in {"kill", "again"} or name not in PROCESSES - {"spawn"}


def try_fault(bench: Bench, shop: Shop, table: Table, kind: str, at: int) -> str | None:
    """Let something go wrong at a call; return what is not as it must be."""
    prepare(bench, table)
    fault = Fault("kill" if kind == "again" else kind, at)
    ran = bench.run(*table.command, fault=fault)
    wrong: list[str] = []
    if fault.kind == "kill":
        if ran.code != -signal.SIGKILL:
            # Timing made this run shorter than the recorded one: it is whole all the same.
            wrong += [] if ran.code >= 0 else [f"ended with {ran.code}"]
    else:
        wrong += _answered(bench, table, kind, ran)
    if kind == "again":
        again = random.Random(at).randint(1, _MOST_CALLS_OF_A_RECOVERY)  # noqa: S311 -- the same every time
        bench.run("recover", fault=Fault("kill", again))
    wrong += _recovered(bench, shop, table, critical=kind not in {"kill", "again"})
    if at % _THEN_EVERY == 0 and not wrong:
        wrong += _goes_on(bench, table)
    return invariants.only(wrong)


def try_image(bench: Bench, shop: Shop, table: Table, image: Image) -> str | None:
    """Start from what a power cut left; return what is not as it must be."""
    bench.begin(image.disk, AFTER_THE_CUT)
    attempt = begun_attempt(table)
    begun = frozenset({attempt[0]}) if attempt and image.at >= attempt[1] else frozenset[str]()
    wrong = [*_recovered(bench, shop, table, until=table.calls[image.at - 1].moment, begun=begun)]
    if image.at % (4 * _THEN_EVERY) == 0 and image.fate != "kept" and not wrong:
        wrong += _goes_on(bench, table)
    return invariants.only(wrong)


def _answered(bench: Bench, table: Table, kind: str, ran: Ran) -> Iterator[str]:
    """Yield what is wrong with how a command ended that met an error."""
    if ran.code < 0 or ran.code not in {0, 1, 3, 5} or "Traceback" in ran.said or "INTERNAL" in ran.said:
        yield f"ended with {ran.code}: {ran.said[-600:]}"
    end = invariants.end_of(bench.endpoint, table.ends)
    named = [_CODES[kind], *_SERVICES, "ROLLBACK_FAILED"]
    if ran.code != 0 and not any(code in ran.said for code in named):
        yield f"{kind}: none of {named} is said: {ran.said[-400:]}"
    if table.name == "update" and end == "old" and ran.code == 0:
        yield "nothing was updated, and the exit code is 0"
    if kind in SINGLE and not bench.endpoint.paths.journal.exists() and table.name in {"update", "rollback"}:
        # What was begun was brought to an end without another start.
        yield from invariants.is_whole(bench.endpoint, table.ends, critical=True)


def _recovered(
    bench: Bench, shop: Shop, table: Table, *, critical: bool = False, until: float | None = None,
    begun: frozenset[str] = frozenset(),
) -> Iterator[str]:  # fmt: skip
    """Recover, twice; yield what is wrong then. ``begun``: attempts that must be reported."""
    endpoint = bench.endpoint
    begun |= frozenset(filter(None, [invariants.attempt_in_journal(endpoint.paths)]))
    if table.past is not None:
        # The recording of its past went on to the end, and what it told the server is of another world.
        until = 0.0
    ran = bench.run("recover")
    if ran.code != 0 and not (critical and "ROLLBACK_FAILED" in ran.said):
        yield f"recovery ended with {ran.code}: {ran.said[-600:]}"
    begun |= invariants.attempts_in_log(endpoint)
    yield from invariants.is_whole(endpoint, table.ends, critical=critical)
    yield from invariants.is_clean(endpoint)
    yield from invariants.says_the_truth(endpoint, floors=table.name != "install")
    end = invariants.end_of(endpoint, table.ends)
    yield from invariants.is_reported(endpoint, shop, begun, end, until)
    before = invariants.state_of(endpoint)
    second = bench.run("recover")
    if second.code != 0 or "interrupted" in second.said:
        yield f"recovering again ended with {second.code}: {second.said[-300:]}"
    yield from invariants.changes(before, invariants.state_of(endpoint))


def _goes_on(bench: Bench, table: Table) -> Iterator[str]:
    """Do what comes next; yield what is wrong then."""
    if not table.then:
        return
    critical = bool(invariants.held(bench.endpoint))
    bench.run(*(("checknow", "--retry", *table.then[1:]) if critical else table.then))
    end = invariants.end_of(bench.endpoint, table.ends)
    if end != table.last:
        yield f"the next {table.then[0]} ended in {end}, expected {table.last}\n{bench.endpoint.log()[-1500:]}"
    yield from invariants.is_whole(bench.endpoint, table.ends)
    yield from (f"after the next one: {left}" for left in invariants.is_clean(bench.endpoint))
