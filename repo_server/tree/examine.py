"""From groups to outcomes: hashes what must be, checks signatures once, says when to look again (L21, L24)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from repo_server.core.keys import NotVerified
from repo_server.core.model import Release
from repo_server.core.statement import Statement
from repo_server.tree.digests import Digest, Digests, Hashed, Moving, Running, racy
from repo_server.tree.groups import Fingerprints, Group, Memo, Outcome, Sidecars, judge, rests_at, wants_digest
from repo_server.tree.rules import Rules
from repo_server.tree.treeio import FileIdentity
from repo_server.tree.walk import UNREADABLE_FILE, Fault

_UNSURE = timedelta(seconds=0.2)
_RUNNING = timedelta(seconds=0.1)
_RETRY = timedelta(seconds=5)
"""The disk may have got over it, and no time of the file would tell."""


class Job(msgspec.Struct, frozen=True, gc=False):
    """A group whose files changed, and what its sidecars say now."""

    group: Group
    sidecars: Sidecars
    unsure: bool
    """A sidecar was so young, or moved so much, that it must be read again."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a scan looks, and how long it waits for digests."""

    now: datetime
    now_ns: int
    patience: float | None
    """Seconds; ``None``: to the end."""
    settle: timedelta


def examine(jobs: Iterable[Job], digests: Digests, rules: Rules, moment: Moment) -> dict[str, datetime | None]:
    """Give every job's group its outcome; return path → when to look again. Raises ``HashingStopped``."""
    todo = list(jobs)
    known: dict[str, Hashed] = {}
    wanted: dict[str, FileIdentity] = {}
    for job in todo:
        identity = wants_digest(job.group, job.sidecars, rules.config.limits.max_file_bytes)
        if identity is None:
            continue
        digest = digests.known(job.group.path, identity)
        if digest is not None:
            known[job.group.path] = digest
        if _must_hash(job.group, identity, digest, moment):
            wanted[job.group.path] = identity
    computed = digests.compute(wanted, moment.now_ns, moment.patience)
    return {job.group.path: _conclude(job, known, computed, rules, moment) for job in todo}


def _must_hash(group: Group, identity: FileIdentity, digest: Hashed | None, moment: Moment) -> bool:
    if digest is not None:
        # A digest taken of a very young file is taken again once the file can no longer change unnoticed.
        return digest.racy and not racy(identity, moment.now_ns)
    return not group.mismatched or moment.now >= rests_at(group, moment.settle)


def _conclude(
    job: Job, known: dict[str, Hashed], computed: dict[str, Digest], rules: Rules, moment: Moment
) -> datetime | None:
    group, path = job.group, job.group.path
    digest = computed.get(path, known.get(path))
    rehashing = isinstance(digest, Running) and path in known
    if rehashing:
        digest = known[path]
    found = judge(group, job.sidecars, digest, moment.now, moment.settle, rules.config.limits.max_file_bytes)
    keep = not job.unsure and isinstance(digest, Hashed) and not digest.racy
    group.outcome = _check_signatures(job, found.outcome, rules, keep=keep)
    group.mismatched = _still_mismatched(group, digest)
    again = found.again
    if rehashing or isinstance(digest, Running):
        again = moment.now + _RUNNING
    faults = group.outcome.faults
    if faults and any(fault.code == UNREADABLE_FILE for fault in faults):
        again = moment.now + _RETRY
    elif job.unsure:
        later = moment.now + _UNSURE
        again = later if again is None else min(again, later)
    return again


def _still_mismatched(group: Group, digest: Digest | None) -> bool:
    if group.files.get("") is None or (group.outcome is not None and group.outcome.release is not None):
        return False
    if isinstance(digest, Hashed | Moving):
        return True
    return group.mismatched


def _check_signatures(job: Job, outcome: Outcome, rules: Rules, *, keep: bool) -> Outcome:
    """Leave only the signatures that verify; too few of them are a problem (L21). ``keep``: remember it all."""
    group, release = job.group, outcome.release
    if release is None:
        return outcome
    memo = group.memo
    if memo is not None and memo.keys == rules.fingerprint and memo.files == group.files:
        return _signed_by(outcome, release, memo.signers)
    statement = Statement(rules.keys.product, release.id, release.sha256, release.size)
    verdict = _verdict(statement, job.sidecars, rules)
    if memo is not None and memo.verdict == verdict:
        signers = memo.signers
    else:
        result = rules.keys.verify(statement, release.signatures)
        if isinstance(result, NotVerified):
            fault = Fault(release.path, result.code, result.message)
            return msgspec.structs.replace(outcome, release=None, identity=None, faults=(fault,))
        signers = tuple(signature.key_id for signature in result.signatures)
    if keep:
        files: Fingerprints = {
            suffix: entry for suffix, entry in group.files.items() if isinstance(entry, FileIdentity)
        }
        group.memo = Memo(files, job.sidecars, verdict, rules.fingerprint, signers)
    return _signed_by(outcome, release, signers)


def _signed_by(outcome: Outcome, release: Release, signers: tuple[str, ...]) -> Outcome:
    if len(signers) == len(release.signatures):
        return outcome
    good = tuple(signature for signature in release.signatures if signature.key_id in signers)
    return msgspec.structs.replace(outcome, release=replace(release, signatures=good))


def _verdict(statement: Statement, sidecars: Sidecars, rules: Rules) -> str:
    """Name a check by everything that goes into it."""
    content = f"{rules.fingerprint} {sidecars.signatures_digest}\n".encode() + statement.to_bytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
