"""The scanner's cache on disk: what it worked out about each release file, for the next start (L25).

One file in the state folder, replaced whole. Whatever it contains is believed only for files whose identity is still
the same; garbage in it costs time and nothing else.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from repo_server.core.version import Version
from repo_server.tree.groups import Memo
from repo_server.tree.treeio import FileIdentity, write_atomic

NAME = "scan-cache"
VERSION = 1

_log = logging.getLogger(__name__)


class CachedFile(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One release file: its digest, and what its sidecars said."""

    identity: FileIdentity
    sha256: str
    memo: Memo | None


class Cache(msgspec.Struct):
    """Everything that is kept."""

    files: dict[str, CachedFile] = {}
    """By path."""
    texts: dict[str, bytes] = {}
    """Last good contents of the operator's files (L30)."""
    version: int = VERSION


def load(state: Path) -> Cache:
    """Read the cache; one that is missing, damaged or of another version is empty."""
    path = state / NAME
    try:
        cache = _DECODER.decode(path.read_bytes())
    except FileNotFoundError:
        return Cache()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        _log.warning("%s is not usable, everything is worked out again: %s", path, error)
        return Cache()
    if cache.version != VERSION:
        _log.info("%s is of version %d, expected %d; everything is worked out again", path, cache.version, VERSION)
        return Cache()
    return cache


def save(state: Path, cache: Cache) -> bool:
    """Replace the cache; a failure is logged and returned: without a cache everything works, only later."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(state / NAME, msgspec.msgpack.encode(cache, enc_hook=_plain), 0o600)
    except OSError as error:
        _log.warning("the scan cache in %s cannot be saved: %s; the next start hashes everything", state, error)
        return False
    return True


def _plain(value: object) -> object:
    if isinstance(value, Version):
        return value.text
    raise NotImplementedError(f"{type(value)} does not belong into the cache")


def _value(kind: type, value: Any) -> Any:
    if kind is Version:
        return Version(value)
    raise NotImplementedError(f"{kind} does not belong into the cache")


_DECODER = msgspec.msgpack.Decoder(Cache, dec_hook=_value)
