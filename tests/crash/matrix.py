"""All trials of the tables, spread over processes, and what came out."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crash import trials
from crash.bench import Bench
from crash.calls import Synced
from crash.cuts import Cutter, Image
from crash.disk import Known
from crash.shop import Shop
from crash.tables import Table, steps_of
from crash.tap import PROCESSES
from crash.trials import KINDS, Trial, is_possible

RECOVERY_SAMPLE = 40
"""Points per fault of each recovery, if nothing else is asked for."""
_GENERATIONS = 1_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which trials to make."""

    kinds: tuple[str, ...] = KINDS
    at: str | None = None
    """One point only."""
    sample: int | None = None
    """So many evenly spread ones per table and kind."""
    shift: int = 0
    """Where the sample begins."""
    step: str | None = None
    """Only calls and cuts of this step of a sequence, of any component."""

    def of_recoveries(self) -> Wanted:
        """Return it for recoveries, of which there are too many to try all."""
        sample = RECOVERY_SAMPLE if self.sample is None and self.at is None else self.sample
        return replace(self, sample=sample)

    def cuts(self, count: int) -> Collection[int]:
        """Return behind which of so many calls the power may be cut."""
        if self.at is not None:
            return {int(self.at.partition(".")[0])} if "." in self.at else ()
        if self.sample is None or self.step is not None:
            return range(1, count + 1)
        return {1 + (self.shift + index * count // self.sample) % count for index in range(self.sample)}


@dataclass
class Matrix:
    """Tables and their trials."""

    folder: Path
    shop: Shop
    tables: dict[str, Table]
    trials: list[Trial] = field(default_factory=list)
    images: dict[tuple[str, str], Image] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many points there are, also those that a sample leaves out."""

    def plan(self, asked: Wanted) -> None:
        """Make the list of trials."""
        for table, kind in itertools.product(self.tables.values(), asked.kinds):
            wanted = asked if table.past is None else asked.of_recoveries()
            if kind == "power":
                points = chosen = [*self._cuts(table, wanted)]
            else:
                points = [*_points(table, kind, wanted.step)]
                chosen = [wanted.at] if wanted.at else _sampled(points, wanted)
            self.counts[table.name, kind] = len(points)
            self.trials += [Trial(table.name, kind, point) for point in chosen]

    def run(self, jobs: int) -> Iterator[tuple[Trial, str | None]]:
        """Make all trials; yield each with what was wrong."""
        context = multiprocessing.get_context("fork")
        gc.collect()
        gc.freeze()
        with context.Pool(jobs, self._begin, (context.Value("i", 0),)) as pool:
            yield from pool.imap_unordered(self._try, self.trials)

    def _begin(self, number: object) -> None:
        global _bench  # noqa: PLW0603 -- what a process of a pool has is global
        with number.get_lock():  # type: ignore[attr-defined]
            number.value += 1  # type: ignore[attr-defined]
            mine = number.value  # type: ignore[attr-defined]
        _bench = Bench(self.folder / f"bench-{mine}", generation=mine * _GENERATIONS)

    def _try(self, trial: Trial) -> tuple[Trial, str | None]:
        assert _bench is not None
        table = self.tables[trial.table]
        try:
            if trial.kind == "power":
                image = self.images[trial.table, trial.at]
                return trial, trials.try_image(_bench, self.shop, table, image)
            return trial, trials.try_fault(_bench, self.shop, table, trial.kind, int(trial.at))
        except Exception:  # noqa: BLE001 -- a fault of the trial itself is said like any other
            return trial, traceback.format_exc()
        finally:
            _bench.clear()

    def _cuts(self, table: Table, wanted: Wanted) -> Iterator[str]:
        """Yield the labels of a table's images: each disk once, or a sample of one per cut."""
        cutter, seen, known = Cutter(table.past.start if table.past else table.start), set[object](), Known()
        for call in table.past.calls if table.past else ():
            cutter.follow(call)
        steps, chosen = steps_of(table.calls), wanted.cuts(len(table.calls))
        for at, call in enumerate(table.calls, 1):
            cutter.follow(call)
            if at not in chosen or wanted.step not in {None, steps[at - 1]}:
                continue
            images = list(cutter.images(at))
            if wanted.sample is not None:
                images = random.Random(at + wanted.shift).sample(images, 1)  # noqa: S311 -- the same every time
            for image in images:
                key = image.disk.key(known)
                if key not in seen and wanted.at in {None, image.label}:
                    seen.add(key)
                    self.images[table.name, image.label] = image
                    yield image.label


_bench: Bench | None = None


def _points(table: Table, kind: str, step: str | None) -> Iterator[str]:
    changed = True
    for at, (call, its) in enumerate(zip(table.calls, steps_of(table.calls), strict=True), 1):
        # Killed before a call is killed after the one before, unless that changed something.
        is_new = changed or kind not in {"kill", "again"}
        changed = any(not isinstance(change, Synced) for change in call.changes) or call.name in PROCESSES
        if is_new and is_possible(call.name, kind) and step in {None, its}:
            yield str(at)


def _sampled(points: Sequence[str], wanted: Wanted) -> list[str]:
    if wanted.sample is None or len(points) <= wanted.sample:
        return list(points)
    return [
        points[(wanted.shift + index * len(points) // wanted.sample) % len(points)] for index in range(wanted.sample)
    ]


def report(matrix: Matrix, jobs: int) -> int:
    """Make all trials, print counts and failures, and return how many failed."""
    began, failed, done = time.monotonic(), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for trial, wrong in matrix.run(jobs):
        done[trial.table, trial.kind] += 1
        if wrong is not None:
            failed[trial.table, trial.kind] += 1
            print(f"FAILED {trial.command}\n    {wrong}", flush=True)
        if sys.stderr.isatty():
            print(f"\r{done.total()} of {len(matrix.trials)}", end="", file=sys.stderr)
    print(f"{'table':<28} {'fault':<9} {'points':>7} {'tried':>7} {'failed':>7}")
    for key in done:
        what = "images" if key[1] == "power" else "calls"
        print(f"{key[0]:<28} {key[1]:<9} {matrix.counts[key]:>7} {done[key]:>7} {failed[key]:>7}  {what}")
    seconds = time.monotonic() - began
    print(f"{done.total()} trials, {failed.total()} failed, {seconds / 60:.1f} minutes with {jobs} processes")
    return failed.total()


def scratch() -> Path:
    """Return a new folder, in memory where there is such a place: no flush has to reach a disk here."""
    import tempfile

    memory = Path("/dev/shm")  # noqa: S108 -- a new folder in it is made
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="crash-", dir=memory if usable else None)).resolve()


def remove(folder: Path) -> None:
    """Remove a scratch folder."""
    shutil.rmtree(folder, ignore_errors=True)
