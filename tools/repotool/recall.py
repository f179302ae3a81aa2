"""``block``, ``unblock`` and ``rollback``: a release is recalled, or given back (L15, L51, FR-RBK-001)."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from repo_server.core.catalogue import Catalogue
from repo_server.core.errors import FormatError
from repo_server.core.model import Block, ReleaseId
from repo_server.core.names import SidecarKind
from repo_server.core.sidecars import format_blocked, parse_blocked
from repo_server.tree import treeio
from repotool import sentences
from repotool.errors import PartlyDone
from repotool.inventory import ReleaseFile
from repotool.tree import Tree


class RecallAction(enum.StrEnum):
    """What is done with a file."""

    BLOCK = "block"
    UNBLOCK = "unblock"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class RecallStep:
    """One file, what is done with it and why."""

    file: ReleaseFile
    action: RecallAction
    why: str
    content: bytes = b""


def plan_block(
    tree: Tree, files: Sequence[ReleaseFile], reason: str, by: str | None, now: datetime
) -> list[RecallStep]:
    """Decide which files are blocked; one that is blocked for the same reason stays as it is."""
    fresh = format_blocked(Block(reason, by, now.replace(microsecond=0)))
    parse_blocked(fresh)
    steps = []
    for file in files:
        before = _standing(tree, file)
        block = _parsed(before)
        if block is not None and block.reason == reason:
            steps.append(RecallStep(file, RecallAction.NOTHING, "blocked already for this reason"))
            continue
        content, why = fresh, "recalled"
        if block is not None and before is not None:
            content, why = _merged(before, fresh), f"was blocked: {block.reason}"
        elif before is not None:
            why = "its .blocked was malformed"
        steps.append(RecallStep(file, RecallAction.BLOCK, why, content))
    return steps


def plan_unblock(tree: Tree, files: Sequence[ReleaseFile]) -> list[RecallStep]:
    """Decide which files are given back."""
    steps = []
    for file in files:
        before = _standing(tree, file)
        block = _parsed(before)
        if before is None:
            steps.append(RecallStep(file, RecallAction.NOTHING, "not blocked"))
        else:
            why = f"was blocked: {block.reason}" if block is not None else "its .blocked was malformed"
            steps.append(RecallStep(file, RecallAction.UNBLOCK, why))
    return steps


def as_if_blocked(catalogue: Catalogue, recalled: Collection[ReleaseId], reason: str) -> Catalogue:
    """Return the catalogue as it would be with these releases recalled."""
    found = [release for identifier in recalled if (release := catalogue.find(identifier)) is not None]
    return catalogue.changed((), [replace(release, block=Block(reason)) for release in found])


def execute_recall(tree: Tree, steps: Sequence[RecallStep]) -> None:
    """Write or remove the sidecars, under the tree's lock that the caller holds; raise ``PartlyDone``."""
    todo = [step for step in steps if step.action is not RecallAction.NOTHING]
    treeio.remove_leftovers({(tree.root / step.file.path).parent for step in todo})
    for number, step in enumerate(todo):
        path = tree.root / step.file.sidecar(SidecarKind.BLOCKED)
        try:
            if step.action is RecallAction.BLOCK:
                treeio.write_atomic(path, step.content)
            else:
                treeio.remove(path)
        except OSError as error:
            if number == 0:
                raise
            raise PartlyDone(
                f"{sentences.of(error)}; {number} of {sentences.count(len(todo), 'file')} are done, "
                "run the same command again for the rest"
            ) from error


def _standing(tree: Tree, file: ReleaseFile) -> bytes | None:
    if SidecarKind.BLOCKED not in file.sidecars:
        return None
    try:
        return treeio.read_small(tree.root, file.sidecar(SidecarKind.BLOCKED), tree.config.limits.max_sidecar_bytes)[0]
    except treeio.TooLarge:
        return b""


def _parsed(data: bytes | None) -> Block | None:
    """Read a ``.blocked``; a malformed one keeps the release from being offered as well (L15), and is replaced."""
    try:
        return None if data is None else parse_blocked(data)
    except FormatError:
        return None


def _merged(before: bytes, fresh: bytes) -> bytes:
    """Keep the fields of the old file that the new one does not say (L16)."""
    fields = msgspec.json.decode(before) | msgspec.json.decode(fresh)
    return msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"
