"""The commands whose every call is tried: where each starts, what it may end in, and what it calls."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from crash.bench import Bench
from crash.calls import Call, Written, renumbered
from crash.cuts import Cutter
from crash.disk import Disk
from crash.invariants import FLOOR, End, Ends
from crash.shop import COMPONENTS, Shop

from agent.floor import raise_floor

AFTER_THE_CUT = "another boot"
_ATTEMPT = re.compile(rb'"attempt_id": "([0-9a-f-]+)"')
_STEP = re.compile(rb'"step": "(\w+)".*?"position": (\d+|-1)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Past:
    """The calls of an agent that was killed. What it did not flush may still be lost after its recovery."""

    start: Disk
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One command on one disk."""

    name: str
    start: Disk
    command: tuple[str, ...]
    ends: Ends
    then: tuple[str, ...]
    """What a person or the schedule does next, and what gets to the end ``last``."""
    last: str
    calls: tuple[Call, ...] = ()
    programs_run: bool = True
    """Whether the programs run at the beginning; after a power cut they do not."""
    past: Past | None = None
    """Of a recovery: what happened to the disk before."""


def installed_disk(bench: Bench, shop: Shop) -> Disk:
    """Install three components, with files of their own, floors, and everything that a used endpoint has."""
    ran = bench.run(*_install(shop))
    if ran.code != 0:
        raise RuntimeError(ran.said)
    for name in COMPONENTS:
        raise_floor(bench.endpoint.paths.floor, name, FLOOR)
        data = bench.endpoint.paths.install(name) / "data"
        (data / "deep").mkdir(parents=True)
        (data / "kept").write_text(name)
        (data / "deep" / "kept").write_text(name)
    bench.power_off()
    # What is in the log and the reports from here on is about the trial.
    bench.endpoint.paths.log.unlink()
    return bench.disk()


def basic_tables(bench: Bench, shop: Shop, names: Collection[str]) -> Iterator[Table]:
    """Yield the tables of whole commands, recorded."""
    disk = installed_disk(bench, shop)
    bench.clear()
    bench.endpoint.root.mkdir()
    empty = bench.disk()
    update, back = ("once", "--server", shop.urls["good"]), ("once", "--server", shop.urls["bad"])
    again = ("reinstall", "service", "--clean", "--server", shop.urls["same"])
    install = _install(shop)
    for table in (
        Table("update", disk, update, {}, update, "new"),
        Table("rollback", disk, back, {}, update, "other"),
        Table("reinstall", disk, again, {}, again, "new"),
        Table("uninstall", disk, ("uninstall", "probe", "ui"), {}, (), "new"),
        Table("install", empty, install, {}, install, "new", programs_run=False),
    ):
        if table.name in names:
            yield recorded(bench, table, other=update if table.last == "other" else ())


def recorded(bench: Bench, table: Table, other: tuple[str, ...] = ()) -> Table:
    """Run a table's command once; return the table with its calls and ends. ``other`` leads to the end ``other``."""
    prepare(bench, table)
    # Programs were started, which is written down; the recording starts from there.
    start = bench.disk()
    old = End.of(bench.endpoint)
    ran = bench.run(*table.command, record=True)
    after = End.of(bench.endpoint)
    ends = {"old": old} if after == old else {"old": old, "new": after}
    if other:
        bench.run(*other)
        ends["other"] = End.of(bench.endpoint)
    return replace(table, calls=ran.calls, ends=ends, start=start)


def prepare(bench: Bench, table: Table) -> None:
    """Put a table's disk in place, with its programs running."""
    bench.begin(table.start, "" if table.programs_run else AFTER_THE_CUT)
    if table.programs_run:
        ran = bench.run("recover")
        if ran.code != 0:
            raise RuntimeError(ran.said)


def recovery_tables(table: Table) -> Iterator[Table]:
    """Yield the recoveries after a kill or cut at the end of each step of a table, the last component's."""
    cutter, last, began = Cutter(table.start), dict[str, int](), dict[str, int]()
    for at, step in enumerate(steps_of(table.calls), 1):
        if step:
            began.setdefault(step, at)
            # In the middle of the steps that have much to do, at the end of the others.
            last[step] = at if step not in {"clean", "discard"} else (began[step] + at) // 2
    for at, call in enumerate(table.calls, 1):
        if call.name in {"rename", "replace"} and "/spool/" in call.path:
            # A report is there, and its name is not durable yet.
            last["report"] = at
    wanted = {at: step for step, at in last.items()}
    for at, call in enumerate(table.calls, 1):
        cutter.follow(call)
        if at in wanted:
            disk = cutter.as_seen()
            name = f"{table.name}-{wanted[at]}"
            past = Past(table.start, table.calls[:at])
            yield Table(name, disk, ("recover",), table.ends, table.then, table.last, programs_run=False, past=past)


def with_calls(bench: Bench, table: Table) -> Table:
    """Return a recovery with its recorded calls, about the nodes of its past."""
    prepare(bench, table)
    there = bench.disk()
    ran = bench.run(*table.command, record=True)
    numbers = dict(table.start.numbers())
    same = {node: numbers[path] for path, node in there.numbers()}
    return replace(table, calls=tuple(renumbered(call, same) for call in ran.calls))


def begun_attempt(table: Table) -> tuple[str, int] | None:
    """Return which attempt a table's command begins, and behind which call that is durable."""
    calls, found, waits = table.past.calls if table.past else table.calls, "", False
    for at, call in enumerate(calls, 1):
        for change in call.changes:
            if "/.journal." in call.path and isinstance(change, Written) and (match := _ATTEMPT.search(change.data)):
                found = match[1].decode()
        waits = waits or (bool(found) and call.name in {"rename", "replace"} and "/.journal." in call.path)
        if waits and call.name == "fsync" and call.path.endswith("/commandit"):
            return found, 0 if table.past else at
    return None


def steps_of(calls: Sequence[Call]) -> list[str]:
    """Return for each call at which step of a sequence it happens, as the journal has it; "" before the first."""
    found, step = [], ""
    for call in calls:
        step = _step_of(call) or step
        found.append(step)
    return found


def _step_of(call: Call) -> str | None:
    if "/.journal." not in call.path:
        return None
    for change in call.changes:
        if isinstance(change, Written) and (match := _STEP.search(change.data)):
            return match[1].decode()
    return None


def _install(shop: Shop) -> tuple[str, ...]:
    return ("install", "--server", shop.urls["same"], "--root", str(shop.root_json),
            "--components", ",".join(COMPONENTS), "--service-manager", "process")  # fmt: skip
