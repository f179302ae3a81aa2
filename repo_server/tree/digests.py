"""Digests of release files, computed on all cores, each trusted only for an unchanged file (L25)."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import msgspec

from repo_server.tree.collecting import resumed
from repo_server.tree.treeio import FileIdentity, NotRegular, open_beneath

_CHUNK = 1024 * 1024
_FINE_NS = 100_000_000
_COARSE_NS = 2_100_000_000
_SECOND_NS = 1_000_000_000
_PROGRESS_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Hashed(msgspec.Struct, frozen=True, gc=False):
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


class Known(msgspec.Struct, frozen=True, gc=False):
    """The digest of a file as it was."""

    identity: FileIdentity
    digest: Hashed


@dataclass(slots=True)
class Digests:
    """Computes and remembers digests. Not to be shared by threads, except for ``close``."""

    root: Path
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    on_progress: Callable[[], None] = lambda: None
    """Called every few seconds while ``compute`` waits: a good moment to save."""
    changed: bool = False
    """There is something to save."""
    _known: dict[str, Known] = field(default_factory=dict)
    _running: dict[str, tuple[FileIdentity, Future[Digest]]] = field(default_factory=dict)
    _pool: ThreadPoolExecutor | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def seed(self, known: dict[str, Known]) -> None:
        """Start with what was known before, by path."""
        self._known = known

    def all_known(self) -> dict[str, Known]:
        """Return every digest that may be kept, also those that were computed and not asked for yet.

        A scan that is interrupted is not for nothing.
        """
        for path, (identity, future) in self._running.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._learn(path, identity, future.result())
        return {path: known for path, known in self._known.items() if not known.digest.racy}

    def forget_but(self, paths: Collection[str]) -> None:
        """Drop the digests of files that are gone."""
        self._known = {path: known for path, known in self._known.items() if path in paths}

    def known(self, path: str, identity: FileIdentity) -> Hashed | None:
        """Return a digest that was computed for exactly this file."""
        known = self._known.get(path)
        return known.digest if known is not None and known.identity == identity else None

    def compute(self, wanted: Mapping[str, FileIdentity], now_ns: int, patience: float | None) -> dict[str, Digest]:
        """Hash files on all cores and wait up to ``patience`` seconds (``None``: to the end).

        What is not done by then is ``Running`` and goes on; asking again gets the result. Raises ``HashingStopped``.
        """
        for path, identity in wanted.items():
            if path not in self._running:
                self._running[path] = (identity, self._executor().submit(self._hash, path, identity, now_ns))
        if wanted:
            with resumed():
                self._wait([self._running[path][1] for path in wanted], patience)
        return {path: self._collect(path, identity) for path, identity in wanted.items()}

    def running(self) -> list[str]:
        """Return the files whose digest was begun and has not been asked for since it was done."""
        return list(self._running)

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
                self.on_progress()
                _log.info("hashing: %d of %d files left after %.0f s", len(left), len(futures), monotonic() - started)
        if self._stop.is_set():
            raise HashingStopped

    def _learn(self, path: str, identity: FileIdentity, digest: Digest) -> None:
        if not isinstance(digest, Hashed):
            return
        self._known[path] = Known(identity, digest)
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
