"""The root of trust: follows ``metadata/N.root.json`` in TUF's way and takes the release keys from the newest (L22)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from tuf.api._payload import Root
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from repo_server.core.errors import KeysInvalid
from repo_server.core.keys import ReleaseKeys, release_keys
from repo_server.core.model import Problem
from repo_server.tree.treeio import FileIdentity, TreeError, read_small

FOLDER = "metadata"
MAX_ROOT_BYTES = 512_000
"""As in TUF's own client."""

_NAME = re.compile(r"([1-9][0-9]{0,8})\.root\.json")


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """The newest root that the chain leads to."""

    root: Root
    data: bytes
    """The bytes it was read from."""
    keys: ReleaseKeys
    fingerprint: str
    """Digest of product, release keys and threshold: equal for equal keys, whatever else changed in the root."""


@dataclass(frozen=True, slots=True)
class RootReading:
    """What the roots of a tree came to; without ``trusted`` nothing may be offered."""

    trusted: TrustedRoot | None
    problems: tuple[Problem, ...] = ()


def read(tree: Path, now: datetime, pinned: bytes | None = None) -> RootReading:
    """Follow a tree's roots from the lowest, or from a pinned one's bytes; never raises for what is in the tree.

    Problems: ``no_root``, ``invalid_root``, and ``root_expired``, which does not stop the offering: an endpoint decides
    by itself what it does with an expired root, and a server that goes silent helps nobody.
    """
    found: dict[int, bytes] = {}
    problems: list[Problem] = []
    for version in _versions(tree):
        try:
            found[version], _ = read_small(tree, path_of(version), MAX_ROOT_BYTES)
        except (OSError, TreeError) as error:
            problems.append(_invalid(version, f"cannot be read: {error}", now))
    reading = follow(found, now, pinned)
    unreadable = _unreadable(tree, now)
    if unreadable is not None:
        return RootReading(reading.trusted, (*problems, unreadable))
    return RootReading(reading.trusted, (*problems, *reading.problems))


def identities(tree: Path) -> Mapping[int, FileIdentity | None]:
    """Return version → identity of the root files: while they stay the same, so do the roots."""
    found: dict[int, FileIdentity | None] = {}
    for version in _versions(tree):
        try:
            found[version] = FileIdentity.of((tree / path_of(version)).lstat())
        except OSError:
            found[version] = None
    return found


def path_of(version: int) -> str:
    """Return where a root of a version lies in a tree."""
    return f"{FOLDER}/{version}.root.json"


def follow(found: Mapping[int, bytes], now: datetime, pinned: bytes | None = None) -> RootReading:
    """Walk from root to root, each exactly one version higher and signed by the one before and by itself (L22).

    Pure. A root that does not verify ends the walk: the one before it stays in force, and the rest is a problem.
    """
    if not found and pinned is None:
        message = f"there is no {path_of(1)}; make one with `repotool init`, or copy the tree with its {FOLDER} folder"
        return RootReading(None, (Problem("", "no_root", message, now),))
    lowest = min(found, default=0)
    try:
        trusted = _first(pinned if pinned is not None else found[lowest], None if pinned is not None else lowest)
    except _Refused as refusal:
        return RootReading(None, (_invalid(lowest, f"{refusal}", now),))
    problems = []
    while (version := trusted.root.version + 1) in found:
        try:
            trusted = _next(trusted, found[version])
        except _Refused as refusal:
            problems.append(_invalid(version, f"{refusal}; {path_of(version - 1)} stays in force", now))
            break
    else:
        missing = version
        problems += [
            _invalid(later, f"cannot be reached: {path_of(missing)} is missing", now)
            for later in sorted(found)
            if later > missing
        ]
    if trusted.root.is_expired(now):
        message = f"expired on {trusted.root.expires:%Y-%m-%d}; sign the next root, agents stop updating without it"
        problems.append(Problem(path_of(trusted.root.version), "root_expired", message, now))
    return RootReading(trusted, tuple(problems))


class _Refused(Exception):
    """A root is malformed or not signed as it must be."""


def _first(data: bytes, version: int | None) -> TrustedRoot:
    metadata = _parse(data)
    if version is not None and metadata.signed.version != version:
        raise _Refused(f"says that it is version {metadata.signed.version}; expected {version}, as its name says")
    return _trusted(metadata, data, metadata.signed)


def _next(before: TrustedRoot, data: bytes) -> TrustedRoot:
    metadata = _parse(data)
    expected = before.root.version + 1
    if metadata.signed.version != expected:
        raise _Refused(f"says that it is version {metadata.signed.version}; expected {expected}, as its name says")
    trusted = _trusted(metadata, data, before.root)
    if trusted.keys.product != before.keys.product:
        raise _Refused(f"is for product {trusted.keys.product}, the one before for {before.keys.product}")
    return trusted


def _parse(data: bytes) -> Metadata[Root]:
    try:
        metadata = Metadata[Root].from_bytes(data)
    # python-tuf lets the errors of whatever field is malformed through.
    except (RepositoryError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _Refused(f"is not TUF metadata: {error}") from error
    if not isinstance(metadata.signed, Root):
        raise _Refused(f"is of type {metadata.signed.type}; expected root")
    return metadata


def _trusted(metadata: Metadata[Root], data: bytes, before: Root) -> TrustedRoot:
    root = metadata.signed
    try:
        before.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
        root.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
        keys = release_keys(root.unrecognized_fields)
    except RepositoryError as error:
        raise _Refused(f"is not signed by enough root keys, its own and those of the root before: {error}") from error
    except KeysInvalid as error:
        raise _Refused(error.message) from error
    return TrustedRoot(root, data, keys, _fingerprint(keys))


def _fingerprint(keys: ReleaseKeys) -> str:
    content = [keys.product, keys.threshold, sorted((key_id, key.to_dict()) for key_id, key in keys.keys.items())]
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def _versions(tree: Path) -> list[int]:
    try:
        names = [path.name for path in (tree / FOLDER).iterdir()]
    except OSError:
        return []
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def _unreadable(tree: Path, now: datetime) -> Problem | None:
    """Say that the folder is there and cannot be read: that is not the same as having no root."""
    try:
        next((tree / FOLDER).iterdir(), None)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Problem(FOLDER, "unreadable_folder", f"the folder of the roots cannot be read: {error.strerror}", now)
    return None


def _invalid(version: int, why: str, now: datetime) -> Problem:
    return Problem(path_of(version) if version else "", "invalid_root", f"{why}".strip(), now)
