"""What is wrong with the tree as a whole: not one file's problem, but what keeps releases from being seen (L8, L26)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from repo_server.core.model import Problem
from repo_server.core.problemcodes import ProblemCode
from repo_server.tree.live import Live

WHOLE_TREE = (
    ProblemCode.TREE_UNREADABLE,
    ProblemCode.UNREADABLE_FOLDER,
    ProblemCode.TOO_MANY_FILES,
    ProblemCode.MASS_REMOVAL,
    ProblemCode.NO_ROOT,
    ProblemCode.INVALID_ROOT,
    ProblemCode.INVALID_POLICY,
    ProblemCode.DAMAGED_LEDGER,
    ProblemCode.LEDGER_NOT_WRITTEN,
)
"""Codes of such problems. A root that has expired is not among them: ``expiry`` says it, and before it happens."""


@dataclass(slots=True)
class WholeTree:
    """Looks through the problems of the current snapshot, once for each."""

    live: Live
    _seen: tuple[Problem, ...] | None = None
    _found: Mapping[str, str] = field(default_factory=dict)

    def symptom(self, code: ProblemCode) -> str | None:
        """Say what is wrong, if this is."""
        problems = self.live.current.result.problems if self.live.ready else ()
        if problems is not self._seen:
            self._found = _sentences(problems)
            self._seen = problems
        return self._found.get(code)


def _sentences(problems: tuple[Problem, ...]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for problem in problems:
        if problem.code in WHOLE_TREE:
            where = f"{problem.path}: " if problem.path else ""
            found.setdefault(problem.code, []).append(f"{where}{problem.message}")
    return {code: texts[0] + (f" (and {len(texts) - 1} more)" if texts[1:] else "") for code, texts in found.items()}
