"""Collects problems by where they come from, and keeps since when each is there (L8)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from repo_server.core.model import Problem
from repo_server.core.names import printable
from repo_server.tree.walk import Fault


@dataclass(slots=True)
class ProblemBook:
    """What is wrong now. A problem that is reported again by the same source keeps its ``since``."""

    _by_source: dict[Hashable, tuple[Problem, ...]] = field(default_factory=dict)
    _sorted: tuple[Problem, ...] | None = ()

    def __contains__(self, source: Hashable) -> bool:
        return source in self._by_source

    def report(self, source: Hashable, faults: Iterable[Fault | Problem], now: datetime) -> None:
        """Replace what a source had to say."""
        before = self._by_source.get(source, ())
        since = {(problem.path, problem.code): problem.since for problem in before}
        problems = tuple(_since(_problem(fault, now), since) for fault in faults)
        if problems == before:
            return
        self._sorted = None
        if problems:
            self._by_source[source] = problems
        else:
            del self._by_source[source]

    def all(self) -> tuple[Problem, ...]:
        """Return every problem, by path and code; the same object as long as nothing changed."""
        if self._sorted is None:
            found = (problem for problems in self._by_source.values() for problem in problems)
            self._sorted = tuple(sorted(found, key=lambda problem: (problem.path, problem.code, problem.message)))
        return self._sorted


def _problem(fault: Fault | Problem, now: datetime) -> Problem:
    if isinstance(fault, Problem):
        return fault
    return Problem(printable(fault.path), fault.code, fault.message, now, fault.state)


def _since(problem: Problem, since: dict[tuple[str, str], datetime]) -> Problem:
    known = since.get((problem.path, problem.code))
    return problem if known is None else replace(problem, since=known)
