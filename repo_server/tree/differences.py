"""What changed between two looks at a tree, as sentences for the log (L8, promise 3). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from repo_server.core.model import FileState, Problem, Release
from repo_server.tree.live import ScanResult


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that changed."""

    event: str
    """Stable, for those who count or alert: ``release_appeared``, ``problem_cleared`` …"""
    message: str
    fields: dict[str, str] = field(default_factory=dict)
    serious: bool = False
    """Somebody should look at it."""


def differences(before: ScanResult | None, after: ScanResult) -> list[Difference]:
    """Compare two results; without one before, releases are counted instead of listed."""
    found: list[Difference] = []
    if before is None:
        recalled = sum(release.block is not None for release in after.catalogue)
        message = f"the tree has {len(after.catalogue)} releases, {recalled} of them recalled"
        found.append(Difference("tree_read", message))
    else:
        found += _releases(before, after)
    found += _problems(before.problems if before is not None else (), after.problems)
    return found


def _releases(before: ScanResult, after: ScanResult) -> Iterator[Difference]:
    if before.catalogue is after.catalogue:
        return
    change = after.since(before)
    old = {release.path: before.catalogue.at(release.path) for release in change.added}
    new = {str(release.id): release for release in change.added if old[release.path] != release}
    left = [before.catalogue.at(path) for path in change.gone] + [old[release.path] for release in new.values()]
    gone = {str(release.id): release for release in left if release is not None}
    for identifier in sorted(gone.keys() - new.keys()):
        yield Difference("release_gone", f"{identifier} is no longer offered", _about(gone[identifier]))
    for identifier, release in sorted(new.items()):
        if identifier in gone:
            yield _changed(identifier, gone[identifier], release)
        else:
            state = "recalled" if release.block is not None else f"in {release.channel}"
            yield Difference("release_appeared", f"{identifier} is {state}", _about(release))


def _changed(identifier: str, before: Release, after: Release) -> Difference:
    about = _about(after)
    if after.block is not None and before.block is None:
        return Difference("release_recalled", f"{identifier} is recalled: {after.block.reason}", about)
    if after.block is None and before.block is not None:
        return Difference("release_unblocked", f"{identifier} is no longer recalled", about)
    if after.channel is not before.channel:
        about["from_channel"] = str(before.channel)
        return Difference("release_promoted", f"{identifier} went from {before.channel} to {after.channel}", about)
    if after.path != before.path:
        return Difference("release_moved", f"{identifier} moved from {before.path} to {after.path}", about)
    return Difference("release_changed", f"{identifier} has other sidecars", about)


def _about(release: Release) -> dict[str, str]:
    return {
        "release": str(release.id),
        "path": release.path,
        "channel": str(release.channel),
        "sha256": release.sha256,
    }


def _problems(before: tuple[Problem, ...], after: tuple[Problem, ...]) -> Iterator[Difference]:
    if before is after:
        return
    old = {(problem.path, problem.code): problem for problem in before}
    new = {(problem.path, problem.code): problem for problem in after}
    for key in sorted(old.keys() - new.keys()):
        yield Difference(
            f"{old[key].state}_cleared", f"{_where(old[key])}: {old[key].code} is over", _of_problem(old[key])
        )
    for key in sorted(new.keys() - old.keys()):
        problem = new[key]
        serious = problem.state is FileState.PROBLEM
        message = f"{_where(problem)}: {problem.message}"
        yield Difference(f"{problem.state}_appeared", message, _of_problem(problem), serious)


def _where(problem: Problem) -> str:
    return problem.path or "the tree"


def _of_problem(problem: Problem) -> dict[str, str]:
    return {"path": problem.path, "code": problem.code, "since": problem.since.isoformat()}
