"""A release file and its sidecars, and what they come to: one judgement per group, whatever its neighbours are (L8).

Pure: ``sidecarfiles`` reads, and ``digests`` hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import msgspec

from repo_server.core.model import Block, Channel, FileState, Meta, Release, ReleaseSignature, Rollout
from repo_server.core.names import ReleaseName, SidecarKind, printable
from repo_server.tree.digests import Digest, Hashed, Moving, Running, granularity_ns
from repo_server.tree.treeio import FileIdentity
from repo_server.tree.walk import Entry, Fault, Odd, unreadable_file

_NO_META = Meta()
Files: TypeAlias = dict[str, Entry]
"""What lies there, by what is added to the release file's name; "" is the release file itself."""


@dataclass(frozen=True, slots=True)
class Sidecars:
    """What the sidecars of one release file say."""

    sha256: str | None = None
    signatures: tuple[ReleaseSignature, ...] | None = None
    signatures_digest: str = ""
    channel: Channel = Channel.STABLE
    meta: Meta = _NO_META
    rollout: Rollout | None = None
    block: Block | None = None
    faults: tuple[Fault, ...] = ()


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What a group came to."""

    release: Release | None = None
    """Verified."""
    identity: FileIdentity | None = None
    """Of the verified file."""
    faults: tuple[Fault, ...] = ()
    actual: str | None = None
    """The digest of a file that has come to rest and is not what ``.sha256`` says."""
    missing: bool = False
    """Nothing is wrong, but the file, its digest or its signature is not there."""
    block: Block | None = None
    """A recall counts whether or not the recalled file is still in order."""
    claimed: str | None = None
    """The digest that ``.sha256`` gives."""
    size: int = 0
    """Bytes of the release file, as far as it is there."""


Fingerprints: TypeAlias = dict[str, tuple[int, int, int, int, int]]
"""Suffix → identity, as plain as it is stored."""


class Memo(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the files of a group said when they were what ``files`` says: while they are, nothing needs to be read."""

    files: Fingerprints
    sidecars: Sidecars
    verdict: str
    """The check of the signatures that succeeded."""
    keys: str
    """Fingerprint of the release keys that it was made with."""
    signers: tuple[str, ...]
    """Ids of the keys whose signatures verified."""


@dataclass(slots=True)
class Group:
    """A release file's name in a folder, what lies there, and what it came to the last time."""

    path: str
    folder: str
    id: str
    """The release's id as text: quicker to look up than the value."""
    name: ReleaseName
    files: Files
    seen: datetime
    """When these files were first seen as they are."""
    memo: Memo | None = None
    outcome: Outcome | None = None
    mismatched: bool = False
    """The bytes did not match at some time since the file appeared: no second hashing before it rests."""

    @property
    def filename(self) -> str:
        """The release file's name without its folder."""
        return self.path[len(self.folder) + 1 :] if self.folder else self.path


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """An outcome, and when to look again though nothing seems to have changed."""

    outcome: Outcome
    again: datetime | None = None


def wants_digest(group: Group, sidecars: Sidecars, max_bytes: int) -> FileIdentity | None:
    """Return the file to hash, if only its digest is missing for a judgement (L24)."""
    entry = group.files.get("")
    if not isinstance(entry, FileIdentity) or entry.size > max_bytes or sidecars.faults:
        return None
    return entry if sidecars.sha256 is not None and sidecars.signatures is not None else None


def rests_at(group: Group, settle: timedelta) -> datetime:
    """Return from when on a file that does not match is taken to have arrived (L24).

    Counted from its last change, by the disk's clock; by ours from when it was first seen so, if that is earlier, so
    that a file server whose clock is ahead does not keep files arriving for ever.
    """
    entries = (group.files.get(""), group.files.get(SidecarKind.SHA256))
    changed = max((entry.ctime_ns for entry in entries if isinstance(entry, FileIdentity)), default=0)
    return min(from_ns(changed), group.seen) + settle


def judge(
    group: Group, sidecars: Sidecars, digest: Digest | None, now: datetime, settle: timedelta, max_bytes: int
) -> Judgement:
    """Decide about a group, but for its signatures and its neighbours (L8); ``digest`` as ``wants_digest`` asked.

    A ``release`` in the outcome has a digest that matches; its ``signatures`` are those of ``.sig``, not yet checked.
    """
    entry = group.files.get("")
    size = entry.size if isinstance(entry, FileIdentity) else 0

    def ends(*faults: Fault, actual: str | None = None, missing: bool = False) -> Outcome:
        return Outcome(
            faults=faults,
            actual=actual,
            missing=missing,
            block=sidecars.block,
            claimed=sidecars.sha256,
            size=size,
        )

    if entry is None:
        return Judgement(ends(*_orphans(group), missing=True))
    if isinstance(entry, Odd):
        return Judgement(ends(not_regular(group.path, entry)))
    if entry.size > max_bytes:
        message = f"it has {entry.size} bytes, at most {max_bytes} are accepted; raise limits.max_file_bytes"
        return Judgement(ends(Fault(group.path, "file_too_large", message)))
    if sidecars.faults:
        return Judgement(ends(*sidecars.faults))
    if sidecars.sha256 is None:
        return Judgement(ends(_pending(group, "no_sha256", "waiting for its .sha256"), missing=True))
    if sidecars.signatures is None:
        return Judgement(ends(_pending(group, "no_signature", "waiting for its .sig"), missing=True))
    if isinstance(digest, Hashed) and digest.sha256 == sidecars.sha256:
        again = from_ns(entry.ctime_ns + granularity_ns(entry)) if digest.racy else None
        return Judgement(_matching(group, sidecars, entry), again)
    if isinstance(digest, Running):
        return Judgement(ends(_pending(group, "arriving", "its digest is being computed")), now)
    if isinstance(digest, Hashed | Moving | None):
        return _unmatched(group, sidecars, digest, rests_at(group, settle), now, ends)
    return Judgement(ends(unreadable_file(group.path, digest.error)))


def not_regular(path: str, entry: Odd) -> Fault:
    """Say that a name is not a file that may be opened (L29)."""
    message = f"{printable(path)} is {entry.what}, expected a regular file; links are not followed"
    return Fault(path, "not_a_regular_file", message)


def from_ns(nanoseconds: int) -> datetime:
    """Return an instant from a file's time; one that no calendar has is the nearest that ours has."""
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return (
            datetime.max.replace(tzinfo=UTC) - timedelta(days=366)
            if nanoseconds > 0
            else datetime.fromtimestamp(0, UTC)
        )


def _unmatched(
    group: Group,
    sidecars: Sidecars,
    digest: Hashed | Moving | None,
    rests: datetime,
    now: datetime,
    ends: Callable[..., Outcome],
) -> Judgement:
    """Decide about bytes that are not, or not yet, what ``.sha256`` says (L24)."""
    if now < rests or not isinstance(digest, Hashed):
        fault = _pending(group, "arriving", "its bytes do not match its .sha256 yet; looking again when it rests")
        return Judgement(ends(fault), max(rests, now))
    message = (
        f"its bytes have the SHA-256 {digest.sha256}, its .sha256 says {sidecars.sha256}; "
        "copy the file again, or sign it again if it is the right one"
    )
    return Judgement(ends(Fault(group.path, "digest_mismatch", message), actual=digest.sha256))


def _matching(group: Group, sidecars: Sidecars, entry: FileIdentity) -> Outcome:
    release = Release(
        id=group.name.id,
        path=group.path,
        size=entry.size,
        sha256=sidecars.sha256 or "",
        signatures=sidecars.signatures or (),
        channel=sidecars.channel,
        meta=sidecars.meta,
        rollout=sidecars.rollout,
        block=sidecars.block,
    )
    return Outcome(release, entry, block=sidecars.block, claimed=sidecars.sha256, size=entry.size)


def _orphans(group: Group) -> list[Fault]:
    return [
        _pending_at(f"{group.path}{kind}", "no_release_file", f"waiting for {printable(group.path)}")
        for kind in group.files
        if kind
    ]


def _pending(group: Group, code: str, message: str) -> Fault:
    return _pending_at(group.path, code, message)


def _pending_at(path: str, code: str, message: str) -> Fault:
    return Fault(path, code, message, FileState.PENDING)
