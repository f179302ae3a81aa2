"""Digests of release files, each trusted only for an unchanged file, and kept on disk for the next start (L25).

The cache is one file in the state folder, replaced whole. Whatever it contains is believed only where the file's
identity still matches; garbage in it costs a second hashing and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import msgspec

from repo_server.treeio import FileIdentity, NotRegular, open_beneath, write_atomic

CACHE_NAME = "digests"
CACHE_VERSION = 1

_CHUNK = 1024 * 1024
_FINE_NS = 100_000_000
_COARSE_NS = 2_100_000_000
_SECOND_NS = 1_000_000_000
_PROGRESS_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file's digest; ``racy``: the file is so young that another write need not have shown in its times."""

    sha256: str
    racy: bool = False


@dataclass(frozen=True, slots=True)
class Moving:
    """The file changed, or went, while it was being read."""


@dataclass(frozen=True, slots=True)
class Running:
    """The digest is still being computed."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The disk did not let the file be read."""

    error: OSError


Digest: TypeAlias = Hashed | Moving | Running | Unreadable


class HashingStopped(Exception):
    """``close`` was called while digests were being computed."""


class _Entry(msgspec.Struct, array_like=True, gc=False):
    identity: tuple[int, int, int, int, int]
    sha256: str
    verdict: str = ""
    """What the signatures were checked against; "" if they did not verify."""
    signers: tuple[str, ...] = ()


class _File(msgspec.Struct):
    version: int
    entries: dict[str, _Entry]
    texts: dict[str, bytes]


@dataclass(slots=True)
class _Known:
    identity: FileIdentity
    digest: Hashed
    verdict: str = ""
    signers: tuple[str, ...] = ()


@dataclass(slots=True)
class Digests:
    """Computes and remembers digests. Not to be shared by threads, except for ``close``."""

    root: Path
    state: Path | None
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    texts: dict[str, bytes] = field(default_factory=dict)
    """Last good contents of the operator's files, kept with the digests (L30)."""
    changed: bool = False
    """There is something to save."""
    _known: dict[str, _Known] = field(default_factory=dict)
    _running: dict[str, tuple[FileIdentity, Future[Digest]]] = field(default_factory=dict)
    _pool: ThreadPoolExecutor | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def load(self) -> None:
        """Read the cache; one that is missing, damaged or of another version is empty."""
        if self.state is None:
            return
        path = self.state / CACHE_NAME
        try:
            file = msgspec.msgpack.decode(path.read_bytes(), type=_File)
            if file.version != CACHE_VERSION:
                raise ValueError(f"version {file.version}, expected {CACHE_VERSION}")  # noqa: TRY301 -- one way to say it
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            _log.warning("the digest cache %s is not usable and will be made again: %s", path, error)
            return
        self.texts = file.texts
        self._known = {
            path: _Known(FileIdentity(*entry.identity), Hashed(entry.sha256), entry.verdict, entry.signers)
            for path, entry in file.entries.items()
        }

    def save(self, paths: Collection[str] | None) -> None:
        """Write the cache for the files that are still there (``None``: for all); a failure is logged, not raised."""
        self._harvest()
        self.changed = False
        if self.state is None:
            return
        if paths is not None:
            self._known = {path: known for path, known in self._known.items() if path in paths}
        entries = {
            path: _Entry(known.identity, known.digest.sha256, known.verdict, known.signers)
            for path, known in self._known.items()
            if not known.digest.racy
        }
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            data = msgspec.msgpack.encode(_File(CACHE_VERSION, entries, self.texts))
            write_atomic(self.state / CACHE_NAME, data, 0o600)
        except OSError as error:
            self.changed = True
            _log.warning("the digest cache in %s cannot be saved: %s; the next start hashes again", self.state, error)

    def known(self, path: str, identity: FileIdentity) -> Hashed | None:
        """Return a digest that was computed for exactly this file."""
        known = self._known.get(path)
        return known.digest if known is not None and known.identity == identity else None

    def signers(self, path: str, verdict: str) -> tuple[str, ...] | None:
        """Return the key ids that signed, if the very same check succeeded before."""
        known = self._known.get(path)
        return known.signers if known is not None and known.verdict == verdict else None

    def remember_signers(self, path: str, verdict: str, signers: tuple[str, ...]) -> None:
        """Keep the result of a check for a file whose digest is known."""
        known = self._known.get(path)
        if known is not None:
            known.verdict, known.signers = verdict, signers
            self.changed = True

    def compute(self, wanted: Mapping[str, FileIdentity], now_ns: int, patience: float | None) -> dict[str, Digest]:
        """Hash files on all cores and wait up to ``patience`` seconds (``None``: to the end).

        What is not done by then is ``Running`` and goes on; asking again gets the result. Raises ``HashingStopped``.
        """
        for path, identity in wanted.items():
            if path not in self._running:
                self._running[path] = (identity, self._executor().submit(self._hash, path, identity, now_ns))
        self._wait([self._running[path][1] for path in wanted], patience)
        return {path: self._collect(path, identity) for path, identity in wanted.items()}

    def finished(self) -> list[str]:
        """Return the files whose digest was computed and has not been asked for."""
        return [path for path, (_, future) in self._running.items() if future.done()]

    def drop_finished(self, path: str) -> None:
        """Forget a result that nobody wants any more, but for the digest."""
        identity, future = self._running.get(path, (None, None))
        if identity is not None and future is not None and future.done():
            self._collect(path, identity)

    def close(self) -> None:
        """Stop hashing at once; may be called from any thread, more than once."""
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _executor(self) -> ThreadPoolExecutor:
        if self._stop.is_set():
            raise HashingStopped
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="hash")
        return self._pool

    def _wait(self, futures: list[Future[Digest]], patience: float | None) -> None:
        if patience is not None:
            wait(futures, patience)
            return
        started, left = monotonic(), set(futures)
        while left and not self._stop.is_set():
            left = wait(left, _PROGRESS_SECONDS).not_done
            if left:
                self.save(None)
                _log.info("hashing: %d of %d files left after %.0f s", len(left), len(futures), monotonic() - started)
        if self._stop.is_set():
            raise HashingStopped

    def _harvest(self) -> None:
        """Know what was computed and not yet asked for, so that a scan that is interrupted was not for nothing."""
        for path, (identity, future) in self._running.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._learn(path, identity, future.result())

    def _learn(self, path: str, identity: FileIdentity, digest: Digest) -> None:
        if not isinstance(digest, Hashed):
            return
        before = self._known.get(path)
        known = _Known(identity, digest)
        if before is not None:
            known.verdict, known.signers = before.verdict, before.signers
        self._known[path] = known
        self.changed = True

    def _collect(self, path: str, identity: FileIdentity) -> Digest:
        computed, future = self._running[path]
        if not future.done():
            return Running()
        del self._running[path]
        if future.cancelled():
            raise HashingStopped
        digest = future.result()
        if computed != identity:
            return Moving()
        self._learn(path, identity, digest)
        return digest

    def _hash(self, path: str, identity: FileIdentity, now_ns: int) -> Digest:
        try:
            descriptor = open_beneath(self.root, path)
        except (FileNotFoundError, NotRegular):
            return Moving()
        except OSError as error:
            return Unreadable(error)
        try:
            if FileIdentity.of(os.fstat(descriptor)) != identity:
                return Moving()
            sha256 = self._read(descriptor)
            if FileIdentity.of(os.fstat(descriptor)) != identity:
                return Moving()
        except OSError as error:
            return Unreadable(error)
        finally:
            os.close(descriptor)
        return Hashed(sha256, racy(identity, now_ns))

    def _read(self, descriptor: int) -> str:
        digest = hashlib.sha256()
        buffer = bytearray(min(_CHUNK, max(1, os.fstat(descriptor).st_size)))
        view = memoryview(buffer)
        # Both calls release the GIL for blocks of this size, so that a thread per core keeps every core busy.
        while count := os.readv(descriptor, [buffer]):
            digest.update(view[:count])
            if self._stop.is_set():
                raise HashingStopped
        return digest.hexdigest()


def granularity_ns(identity: FileIdentity) -> int:
    """Return how far apart two writes must be to show in a file's times, nanoseconds, generously.

    A file system that only keeps whole seconds gives itself away by them.
    """
    whole = identity.mtime_ns % _SECOND_NS == 0 and identity.ctime_ns % _SECOND_NS == 0
    return _COARSE_NS if whole else _FINE_NS


def racy(identity: FileIdentity, now_ns: int) -> bool:
    """Whether a file read at ``now_ns`` could be written again without that showing in its times."""
    return identity.ctime_ns >= now_ns - granularity_ns(identity)
