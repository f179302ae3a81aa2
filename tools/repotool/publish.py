"""Carries out what ``publish_plan`` decided: each release is there whole or not at all (L17, L18).

A run that was killed leaves dot-names and releases without ``.sha256``, which nobody is offered; the next run finishes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from repo_server.tree import ledger, treeio
from repotool import sentences
from repotool.digests import CHUNK, Progress, open_source, silent
from repotool.errors import PartlyDone, ToolError
from repotool.publish_plan import PublishAction, PublishStep
from repotool.sidecar_files import read_sidecar
from repotool.tree import Tree

UNFINISHED_PREFIX = ".publish-"


def execute_publish(tree: Tree, steps: Sequence[PublishStep], progress: Progress = silent) -> None:
    """Do what was planned, under the tree's lock that the caller holds (L17); raise ``PartlyDone`` if some is done."""
    for number, step in enumerate(steps):
        try:
            _execute_one(tree, step, progress)
        except (OSError, ToolError, treeio.TreeError) as error:
            if number == 0:
                raise
            raise PartlyDone(
                f"{sentences.of(error)}; {number} of {sentences.count(len(steps), 'file')} are published, "
                "run the same command again for the rest"
            ) from error


def _execute_one(tree: Tree, step: PublishStep, progress: Progress) -> None:
    target = tree.root / step.target
    if step.action is PublishAction.PUBLISH:
        _make_folders(tree.root, target.parent)
        _copy(step, target, progress)
    treeio.remove_leftovers([target.parent])
    for kind, data in step.sidecars:
        if read_sidecar(target, kind) != data:
            treeio.write_atomic(target.with_name(f"{target.name}{kind}"), data)
    # After .sha256: what a killed run never finished may still be packed anew.
    ledger.record(tree.root, None, {str(step.name.id): step.digest.sha256})


def _make_folders(root: Path, folder: Path) -> None:
    for path in reversed([folder, *folder.parents]):
        if path != root and path.is_relative_to(root) and not path.is_dir():
            path.mkdir()
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                treeio.give_to_owner(descriptor, path.parent)
            finally:
                os.close(descriptor)
            treeio.sync_folder(path.parent)


def _copy(step: PublishStep, target: Path, progress: Progress) -> None:
    """Copy whole, durably, and exactly the bytes that were checked."""
    for leftover in _leftovers(target.parent):
        leftover.unlink(missing_ok=True)
    temporary = target.with_name(f"{UNFINISHED_PREFIX}{step.digest.sha256[:32]}")
    try:
        _write_copy(step, temporary, progress)
        treeio.publish(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_copy(step: PublishStep, temporary: Path, progress: Progress) -> None:
    hasher = hashlib.sha256()
    with os.fdopen(open_source(step.source), "rb", buffering=0) as reader:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as writer:
            while chunk := reader.read(CHUNK):
                hasher.update(chunk)
                writer.write(chunk)
                progress(len(chunk))
            writer.flush()
            os.fchmod(descriptor, 0o644)
            treeio.give_to_owner(descriptor, temporary.parent)
            os.fsync(descriptor)
    if hasher.hexdigest() != step.digest.sha256:
        raise ToolError(f"{step.source} changed while it was copied; publish it again when nothing writes to it")


def _leftovers(folder: Path) -> list[Path]:
    """Return what killed runs left behind; whoever holds the lock is the only one that copies."""
    return list(folder.glob(f"{UNFINISHED_PREFIX}*"))
