"""``promote``: a version's release files move to another channel (L12, L17, L19, FR-SRV-003, design §6).

The plan is a pure function of what the tree says; carrying it out replaces one small file after the other, so a run
that was killed leaves each file old or new, and the next run finishes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from repo_server.core.errors import FormatError
from repo_server.core.model import Channel, Rollout
from repo_server.core.names import SidecarKind
from repo_server.core.sidecars import format_channel, parse_channel, parse_rollout
from repo_server.tree import treeio
from repotool import sentences
from repotool.errors import PartlyDone, Refused, ToolError, Usage
from repotool.inventory import ReleaseFile
from repotool.ramp import Ramp, rewritten
from repotool.tree import Tree

_CAREFUL_FIRST = (Channel.STABLE, Channel.BETA, Channel.ALPHA)
_WRITERS = 8
"""Files written at a time: each waits for the disk twice."""


class Why(enum.StrEnum):
    """Why a file is changed, or is not."""

    MOVES = "moves"
    RAMP = "ramp"
    """On the channel already; its rollout is still another."""
    ALREADY = "already"
    OTHER_CHANNEL = "other_channel"


@dataclass(frozen=True, slots=True)
class Move:
    """From which channel to which."""

    source: Channel
    target: Channel


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release file of the version, with what its sidecars say now."""

    file: ReleaseFile
    channel: Channel
    blocked: bool
    rollout: Rollout | None
    rollout_bytes: bytes | None


@dataclass(frozen=True, slots=True)
class PromoteStep:
    """One file: what it was, what it will be, and why."""

    candidate: Candidate
    why: Why
    detail: str
    channel: Channel
    """Afterwards."""
    rollout: bytes | None = None
    """New content of ``.rollout``; ``None``: it stays as it is."""

    @property
    def changes(self) -> bool:
        """Whether a file is rewritten."""
        return self.why in {Why.MOVES, Why.RAMP}


def move_of(source: Channel | None, target: Channel | None) -> Move:
    """Complete what the operator said; going down is only possible if both are said. Raises ``Usage``."""
    to = target or Channel.STABLE
    if source is None:
        position = _CAREFUL_FIRST.index(to) + 1
        if position == len(_CAREFUL_FIRST):
            raise Usage(f"nothing is promoted to {to} from below; to move releases down say --from and --to")
        source = _CAREFUL_FIRST[position]
    if source is to:
        raise Usage(f"--from and --to are both {to}; name two channels")
    if target is None and _CAREFUL_FIRST.index(source) < _CAREFUL_FIRST.index(to):
        raise Usage(f"that would move releases down from {source} to {to}; say --to as well")
    return Move(source, to)


def read_candidates(tree: Tree, files: Sequence[ReleaseFile]) -> list[Candidate]:
    """Read what the sidecars of release files say; raise ``ToolError`` for one that is malformed."""
    limit = tree.config.limits.max_sidecar_bytes
    found = []
    for file in files:
        channel, rollout, ramp = Channel.STABLE, None, None
        try:
            if SidecarKind.CHANNEL in file.sidecars:
                channel = parse_channel(treeio.read_small(tree.root, file.sidecar(SidecarKind.CHANNEL), limit)[0])
            if SidecarKind.ROLLOUT in file.sidecars:
                ramp, _ = treeio.read_small(tree.root, file.sidecar(SidecarKind.ROLLOUT), limit)
                rollout = parse_rollout(ramp)
        except (FormatError, treeio.TreeError) as error:
            raise ToolError(
                f"{file.path}: {error}; correct the sidecar first, or leave the file out with --component, --os, --arch"
            ) from None
        found.append(Candidate(file, channel, SidecarKind.BLOCKED in file.sidecars, rollout, ramp))
    return found


def plan_promote(candidates: Sequence[Candidate], move: Move, ramp: Ramp | None, now: datetime) -> list[PromoteStep]:
    """Decide for every file whether and why it moves; raise ``Refused`` (blocked), ``ToolError`` (none can move)."""
    blocked = [candidate.file.path for candidate in candidates if candidate.blocked]
    if blocked:
        version = candidates[0].file.name.id.version
        raise Refused(
            f"{version} is blocked ({', '.join(blocked[:5])}{' …' if len(blocked) > 5 else ''}); "  # noqa: PLR2004 -- shown
            f"`repotool unblock {version}` first if it is good after all"
        )
    steps = [_step(candidate, move, ramp, now) for candidate in candidates]
    if all(step.why is Why.OTHER_CHANNEL for step in steps):
        on = sorted({step.candidate.channel for step in steps})
        raise ToolError(
            f"no release is on {move.source}: {candidates[0].file.name.id.version} is on {', '.join(on)}; "
            f"say `--from {on[0]} --to {move.target}` if that is meant"
        )
    return steps


def execute_promote(tree: Tree, steps: Sequence[PromoteStep]) -> None:
    """Rewrite the sidecars, under the tree's lock that the caller holds; raise ``PartlyDone`` if some are done."""
    todo = [step for step in steps if step.changes]
    done, failures = 0, []
    treeio.remove_leftovers({(tree.root / step.candidate.file.path).parent for step in todo})
    with ThreadPoolExecutor(_WRITERS) as pool:
        for future in [pool.submit(_execute_one, tree, step) for step in todo]:
            try:
                future.result()
                done += 1
            except (OSError, treeio.TreeError) as error:
                failures.append(error)
    if failures and not done:
        raise failures[0]
    if failures:
        raise PartlyDone(
            f"{sentences.of(failures[0])}; {done} of {sentences.count(len(todo), 'file')} moved, "
            "run the same command again for the rest"
        ) from failures[0]


def _step(candidate: Candidate, move: Move, ramp: Ramp | None, now: datetime) -> PromoteStep:
    rollout = None if ramp is None else rewritten(candidate.rollout_bytes, ramp.starting(now))
    if candidate.channel is move.target:
        if ramp is not None and not _has(candidate.rollout, ramp):
            return PromoteStep(candidate, Why.RAMP, f"on {move.target} already; gets the rollout", move.target, rollout)
        return PromoteStep(candidate, Why.ALREADY, f"on {move.target} already", move.target)
    if candidate.channel is not move.source:
        detail = f"is on {candidate.channel}, not on {move.source}; say --from {candidate.channel} to move it"
        return PromoteStep(candidate, Why.OTHER_CHANNEL, detail, candidate.channel)
    detail = f"{move.source} → {move.target}"
    if missing := {SidecarKind.SHA256, SidecarKind.SIG} - candidate.file.sidecars:
        detail += f"; not offered yet, it has no {' and no '.join(sorted(missing))}"
    if ramp is None and candidate.rollout is not None and candidate.rollout.paused:
        detail += "; its rollout is paused, so nobody gets it"
    return PromoteStep(candidate, Why.MOVES, detail, move.target, rollout)


def _has(rollout: Rollout | None, ramp: Ramp) -> bool:
    """Whether a rollout is this ramp, whenever it started: running the same command again changes nothing."""
    return (
        rollout is not None
        and not rollout.paused
        and ramp.starting(rollout.start)
        == Rollout(rollout.start, rollout.from_share, rollout.to_share, rollout.duration_seconds)
    )


def _execute_one(tree: Tree, step: PromoteStep) -> None:
    file = step.candidate.file
    # The ramp first: in the other order everybody would be let in for a moment.
    if step.rollout is not None:
        treeio.write_atomic(tree.root / file.sidecar(SidecarKind.ROLLOUT), step.rollout)
    if step.channel is not step.candidate.channel:
        treeio.write_atomic(tree.root / file.sidecar(SidecarKind.CHANNEL), format_channel(step.channel))
