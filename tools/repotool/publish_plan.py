"""What ``publish`` will do with each file, and why; everything is checked before anything is written (L4, L7, L21).

Reads the sources and the tree, writes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from repo_server.core.errors import FormatError
from repo_server.core.keys import ReleaseKeys, Verified
from repo_server.core.model import Channel, ReleaseSignature
from repo_server.core.names import (
    PACKAGE_EXTENSIONS,
    RESERVED_AT_ROOT,
    ReleaseName,
    SidecarKind,
    is_temporary,
    parse_release_name,
    unsafe_name,
)
from repo_server.core.sidecars import (
    format_channel,
    format_rollout,
    format_sha256,
    format_sig,
    parse_channel,
    parse_meta,
    parse_rollout,
    parse_sha256,
    parse_sig,
)
from repo_server.core.statement import Statement
from repo_server.tree import ledger, treeio
from repotool.archive import read_manifest
from repotool.digests import Digest, Progress, digest, silent
from repotool.errors import Refused, ToolError, Usage
from repotool.inventory import ReleaseFile, inventory
from repotool.notes import NO_NOTES, Notes, compose
from repotool.ramp import Ramp
from repotool.sidecar_files import read_sidecar
from repotool.signing import ReleaseSigner, check_identity, check_key, enough, merged, statement_of
from repotool.tree import Tree

_ORDER = (SidecarKind.META, SidecarKind.ROLLOUT, SidecarKind.CHANNEL, SidecarKind.SIG, SidecarKind.SHA256)
"""``.sha256`` last: it marks the release as complete (L18)."""

DEFAULT_CHANNEL = Channel.BETA
"""Nothing reaches everybody by leaving out an option."""


class PublishAction(enum.StrEnum):
    """What is done with a file."""

    PUBLISH = "publish"
    COMPLETE = "complete"
    """It lies in the tree already, without all of its sidecars."""
    NOTHING = "nothing"
    """It is published already, with the same bytes."""


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What the operator says about the files; a sidecar beside a file counts where nothing is said."""

    channel: Channel | None = None
    meta: bytes | None = None
    """The content of a whole ``.meta``."""
    notes: Notes = NO_NOTES
    ramp: Ramp | None = None
    folder: str = ""
    """Below the tree's root, with ``/``."""


@dataclass(frozen=True, slots=True)
class PublishStep:
    """One file, what is done with it and why."""

    source: Path
    name: ReleaseName
    target: str
    """Path below the tree's root, with ``/``."""
    action: PublishAction
    why: str
    digest: Digest
    channel: Channel
    sidecars: tuple[tuple[SidecarKind, bytes], ...] = ()
    """In the order in which they are written."""


@dataclass(frozen=True, slots=True)
class _Ground:
    """What every file is judged by."""

    tree: Tree
    keys: ReleaseKeys
    options: PublishOptions
    signer: ReleaseSigner | None
    present: Sequence[ReleaseFile]
    published: Mapping[str, str]
    now: datetime
    progress: Progress


def plan_publish(
    tree: Tree,
    keys: ReleaseKeys,
    sources: Sequence[Path],
    options: PublishOptions,
    signer: ReleaseSigner | None,
    now: datetime,
    progress: Progress = silent,
) -> list[PublishStep]:
    """Check every file and decide what is done with it; raise ``ToolError`` naming all files that cannot be."""
    _check_folder(options.folder, tree)
    if signer is not None:
        check_key(signer.key, keys)
    present, published = inventory(tree.root, tree.config), ledger.read(tree.root, None)
    ground = _Ground(tree, keys, options, signer, present, published, now, progress)
    steps: dict[str, PublishStep] = {}
    faults: list[ToolError] = []
    for source in sources:
        try:
            step = _plan_one(ground, source)
            twin = steps.setdefault(str(step.name.id), step)
            if twin is not step:
                raise Usage(f"{source} and {twin.source} are the same release {step.name.id}; name one of them")
        except FormatError as error:
            faults.append(ToolError(f"{source}: {error.message}"))
        except (ToolError, treeio.TreeError) as error:
            faults.append(error if isinstance(error, ToolError) else ToolError(f"{source}: {error}"))
    if faults:
        raise _together(faults, len(sources))
    return list(steps.values())


def _together(faults: list[ToolError], asked: int) -> ToolError:
    """Return one error for all files; the gravest gives the exit code."""
    gravest = max(faults, key=lambda fault: fault.exit_code)
    if asked == 1:
        return gravest
    return type(gravest)("nothing is published:" + "".join(f"\n  {fault}" for fault in faults))


def _plan_one(ground: _Ground, source: Path) -> PublishStep:
    tree, keys = ground.tree, ground.keys
    name = parse_release_name(source.name, tree.config.components)
    found = digest(source, ground.progress)
    if found.size > tree.config.limits.max_file_bytes:
        raise Refused(f"{source} has {found.size} bytes; repo.toml allows {tree.config.limits.max_file_bytes} (L6)")
    _check_digest(source, found)
    check_identity(source, name)
    standing = _standing(ground, source, name, found)
    target = standing.path if standing is not None else _target(ground, source)
    if standing is not None and _complete(ground, standing, name, found):
        here = read_sidecar(tree.root / target, SidecarKind.CHANNEL)
        channel = parse_channel(here) if here is not None else Channel.STABLE
        why = f"published already, on {channel}; `repotool promote` changes the channel"
        return PublishStep(source, name, target, PublishAction.NOTHING, why, found, channel)
    beside = read_sidecar(source, SidecarKind.CHANNEL)
    channel = ground.options.channel or (DEFAULT_CHANNEL if beside is None else parse_channel(beside))
    sidecars = {
        SidecarKind.META: _meta(ground, source, name),
        SidecarKind.ROLLOUT: _rollout(ground, source),
        SidecarKind.CHANNEL: format_channel(channel),
        SidecarKind.SIG: format_sig(_signatures(ground, source, target, statement_of(name, keys.product, found))),
        SidecarKind.SHA256: format_sha256(found.sha256, source.name),
    }
    written = tuple((kind, data) for kind in _ORDER if (data := sidecars[kind]) is not None)
    if standing is None:
        return PublishStep(source, name, target, PublishAction.PUBLISH, f"new on {channel}", found, channel, written)
    why = f"lies in the tree without all of its sidecars; goes to {channel}"
    return PublishStep(source, name, target, PublishAction.COMPLETE, why, found, channel, written)


def _standing(ground: _Ground, source: Path, name: ReleaseName, found: Digest) -> ReleaseFile | None:
    """Return the file in the tree that is this release already; raise ``Refused`` if it is not the same (L4, L7)."""
    same_id = [file for file in ground.present if file.name.id == name.id]
    for file in same_id:
        if file.name.extension != name.extension:
            raise Refused(
                f"{name.id} is in the tree already as {file.path}; a release has one file, whatever its extension (L4)"
            )
        if digest(ground.tree.root / file.path) != found:
            raise Refused(
                f"{file.path} in the tree has other bytes than {source}; a version is immutable (L7): "
                "raise the version and pack again"
            )
    known = ground.published.get(str(name.id))
    if known is not None and known != found.sha256:
        raise Refused(
            f"{name.id} was published before with other bytes (sha256 {known}); a version is immutable, also after its "
            "removal (L7): raise the version and pack again"
        )
    return same_id[0] if same_id else None


def _complete(ground: _Ground, file: ReleaseFile, name: ReleaseName, found: Digest) -> bool:
    """Whether a release in the tree has the digest and the signatures that it needs."""
    path = ground.tree.root / file.path
    said, lines = read_sidecar(path, SidecarKind.SHA256), read_sidecar(path, SidecarKind.SIG)
    if said is None or lines is None:
        return False
    try:
        signatures = parse_sig(lines)
        if parse_sha256(said, path.name) != found.sha256:
            return False
    except FormatError:
        return False
    statement = statement_of(name, ground.keys.product, found)
    return isinstance(ground.keys.verify(statement, signatures), Verified)


def _signatures(ground: _Ground, source: Path, target: str, statement: Statement) -> tuple[ReleaseSignature, ...]:
    """Return signatures that reach the threshold; raise ``Refused`` (L21)."""
    lines = read_sidecar(source, SidecarKind.SIG) or read_sidecar(ground.tree.root / target, SidecarKind.SIG)
    signatures = parse_sig(lines) if lines is not None else ()
    if ground.signer is not None:
        signatures = merged(signatures, statement, ground.signer, ground.keys)
    elif lines is None:
        raise Refused(f"{source} has no .sig; sign it with `repotool sign`, or give --key")
    enough(ground.keys, statement, signatures, source)
    return signatures


def _meta(ground: _Ground, source: Path, name: ReleaseName) -> bytes | None:
    options = ground.options
    given = options.meta if options.meta is not None else read_sidecar(source, SidecarKind.META)
    if given is not None:
        if options.notes != NO_NOTES:
            raise Usage(
                "the notes stand in a .meta already; leave out --title, --notes-url and --requires, or the .meta"
            )
        parse_meta(given)
        return given
    own = read_manifest(source).requires if name.extension in PACKAGE_EXTENSIONS else ()
    return compose(options.notes, own, ground.now)


def _rollout(ground: _Ground, source: Path) -> bytes | None:
    if ground.options.ramp is not None:
        return format_rollout(ground.options.ramp.starting(ground.now))
    given = read_sidecar(source, SidecarKind.ROLLOUT)
    if given is not None:
        parse_rollout(given)
    return given


def _target(ground: _Ground, source: Path) -> str:
    """Return where a file from outside of the tree goes; raise ``Refused`` for one that is inside."""
    here, root = source.parent.resolve() / source.name, ground.tree.root.resolve()
    if here.is_relative_to(root):
        # The inventory would have found it at a place where releases are looked for.
        raise Refused(f"{source} lies in the tree where no release is looked for (L1, L2); move it to another folder")
    return (PurePosixPath(ground.options.folder) / source.name).as_posix()


def _check_digest(source: Path, found: Digest) -> None:
    said = read_sidecar(source, SidecarKind.SHA256)
    if said is not None and (expected := parse_sha256(said, source.name)) != found.sha256:
        raise Refused(
            f"{source} does not match its .sha256: expected {expected}, found {found.sha256}; "
            "copy it again, or sign it again if these are the bytes to release"
        )


def _check_folder(folder: str, tree: Tree) -> None:
    if not folder:
        return
    parts = folder.split("/")
    bad = next((part for part in parts if part in {"", ".", ".."} or unsafe_name(part) or is_temporary(part)), None)
    if bad is not None or parts[0] in RESERVED_AT_ROOT or len(parts) > tree.config.limits.max_depth:
        raise Usage(
            f"--folder {folder!r}: expected at most {tree.config.limits.max_depth} plain folder names with / between "
            f"them, and none of {', '.join(RESERVED_AT_ROOT)} first (L1, L2)"
        )
