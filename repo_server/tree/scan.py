"""The scanner: a tree on disk becomes a catalogue and a list of problems. The only reader of the tree (design §2).

``full`` looks at everything, ``update`` at what changed; both come to the same result. The work is done in modules of
their own: ``walk`` lists, ``naming`` sorts, ``inventory`` remembers, ``sidecarfiles`` reads, ``groups`` judges,
``examine`` hashes and verifies, ``claims`` settles who is a release, ``shelf`` makes the result.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

from repo_server.tree import cache, ledger
from repo_server.tree.changed import Changes, sort_changes
from repo_server.tree.claims import settle
from repo_server.tree.collecting import paused
from repo_server.tree.digests import Digests, Hashed, Known
from repo_server.tree.examine import Moment, examine
from repo_server.tree.inventory import FolderAppeared, Inventory, Look
from repo_server.tree.live import ScanResult
from repo_server.tree.removal import MARKER
from repo_server.tree.rules import Reading, RuleBook
from repo_server.tree.shelf import Shelf
from repo_server.tree.treeio import FileIdentity, NotRegular
from repo_server.tree.walk import Fault, Walk, entry_at, open_folder

_SOONEST = 0.02
_ATTEMPTS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How a scanner works; what it accepts stands in ``repo.toml``."""

    settle_seconds: float = 2.0
    """How long a file that does not match must rest before that is a problem (L24)."""
    hash_workers: int | None = None
    """Files hashed at once; ``None``: as many as there are processors."""
    burst: int = 1000
    """More changed paths than this make a full scan."""
    save_seconds: float = 5.0
    """The digest cache is written at most this often, and when the scanner closes."""
    pinned_root: bytes | None = None
    """The root to trust instead of the lowest one in the tree (L22)."""
    observer: bool = False
    """Write nothing into the tree: no ledger (L7), and the operator's confirmation stays for the server (L26)."""


class _AnotherTree(Exception):
    """Another folder took the tree's place during a look: what was read may be of both."""


class Scanner:
    """Reads one tree again and again. Calls wait for each other; ``close`` may come from any thread."""

    def __init__(self, root: Path, state: Path | None, options: ScanOptions | None = None) -> None:
        self._root = root
        self._state = state
        self._options = options or ScanOptions()
        self._digests = Digests(root, self._options.hash_workers or os.cpu_count() or 1)
        self._rulebook = RuleBook(root, self._options.pinned_root)
        self._digests.on_progress = self._save
        self._inventory = Inventory()
        self._texts: dict[str, bytes] = {}
        self._cache_outdated = False
        self._shelf = Shelf()
        self._lock = threading.Lock()
        self._reading: Reading | None = None
        self._ledger: dict[str, str] = {}
        self._ledger_files: object = None
        self._unrecorded: dict[str, str] = {}
        self._due: dict[str, datetime] = {}
        self._unreadable: frozenset[str] = frozenset()
        self._root_seen: tuple[int, int] | None = None
        self._marker_seen: FileIdentity | None = None
        # What a look that was cut short had found out, and nobody was told of.
        self._doubted: set[str] = set()
        self._doubted_folders: set[str] = set()
        self._last: datetime | None = None
        self._was_full = False
        self._saved_at: float | None = None

    def full(self, now: datetime, patience: float | None = None) -> ScanResult:
        """Look at the whole tree. Blocks, so call it from a thread; ``now`` must carry a time zone.

        ``patience`` is how many seconds to wait for digests: what is not done is pending, and ``next_look_seconds``
        says when to ask again; ``None``: until all are done. Raises ``HashingStopped`` after ``close``; nothing that
        lies in the tree raises.
        """
        with self._lock, paused(lasting=self._last is None):
            return self._all_or_nothing(self._full, self._moment(now, patience))

    def update(self, changed: Collection[str], now: datetime, patience: float | None = None) -> ScanResult:
        """Look at paths that changed, relative to the root, and at what is due; otherwise like ``full``.

        The work is for what changed, not for the tree. Changed rules, folders and bursts make it a full scan.
        """
        with self._lock:
            return self._all_or_nothing(lambda moment: self._update(changed, moment), self._moment(now, patience))

    @property
    def root(self) -> Path:
        """The tree's folder."""
        return self._root

    @property
    def was_full(self) -> bool:
        """Whether the last scan looked at everything, asked to or not."""
        return self._was_full

    @property
    def next_look_seconds(self) -> float | None:
        """How many seconds after the last scan ``update(())`` has something to do; ``None``: never by itself."""
        waits = []
        if self._due and self._last is not None:
            waits.append(max(_SOONEST, (min(self._due.values()) - self._last).total_seconds()))
        if self._unsaved:
            waits.append(self._options.save_seconds)
        return min(waits, default=None)

    def close(self) -> None:
        """Stop hashing and save the digest cache; idempotent."""
        self._digests.close()
        with self._lock:
            if self._unsaved:
                self._save()

    def _moment(self, now: datetime, patience: float | None) -> Moment:
        return Moment(now, int(now.timestamp() * 1e9), patience, timedelta(seconds=self._options.settle_seconds))

    def _all_or_nothing(self, scan: Callable[[Moment], ScanResult], moment: Moment) -> ScanResult:
        for _ in range(_ATTEMPTS):
            try:
                return scan(moment)
            except _AnotherTree:
                self._forget_half()
                scan = self._full
            except BaseException:
                self._forget_half()
                raise
        return self._unreachable(OSError(errno.ESTALE, os.strerror(errno.ESTALE)), moment)

    def _forget_half(self) -> None:
        """Have what was only half taken over looked at again from the start."""
        self._inventory.reset(self._inventory.naming.components)
        self._doubted |= self._shelf.known()
        self._doubted_folders |= self._inventory.known_folders()
        self._reading = None

    def _full(self, moment: Moment) -> ScanResult:
        self._start()
        self._was_full = True
        try:
            root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            return self._unreachable(error, moment)
        try:
            return self._walk(root, moment)
        finally:
            os.close(root)

    def _require_same_tree(self) -> None:
        """Raise ``_AnotherTree`` if the root's path leads to another folder than the one that is looked at.

        Rules, ledger and bytes are read by paths: those of an unmounted disk are gone while its folders can be listed.
        """
        try:
            status = self._root.stat()
        except OSError:
            raise _AnotherTree from None
        if (status.st_dev, status.st_ino) != self._root_seen:
            raise _AnotherTree

    def _start(self) -> None:
        if self._last is None:
            cached = cache.load(self._state) if self._state is not None else cache.Cache()
            self._texts = cached.texts
            self._digests.seed({path: _known(file) for path, file in cached.files.items()})
            self._inventory.memos = {path: file.memo for path, file in cached.files.items() if file.memo is not None}

    def _unreachable(self, error: OSError, moment: Moment) -> ScanResult:
        """Keep the last good catalogue: a folder that cannot be read is not an empty one (L26)."""
        message = f"the tree {self._root} cannot be read ({error.strerror}); what was known of it stays in force"
        self._shelf.problems.report("tree", [Fault("", "tree_unreadable", message)], moment.now)
        self._last = moment.now
        self._root_seen = None
        return self._result(set(), moment)

    def _walk(self, root: int, moment: Moment) -> ScanResult:
        status = os.fstat(root)
        self._root_seen = (status.st_dev, status.st_ino)
        self._shelf.problems.report("tree", (), moment.now)
        reading = self._read_rules(moment)
        due = self._take_due(moment)
        look = Look(moment, reading.rules, due)
        look.touched |= self._read_ledger(moment) | self._shelf.guard.absent | self._doubted
        look.odd |= self._doubted_folders
        due_folders = frozenset(path.rpartition("/")[0] for path in due)
        walk = Walk(root, reading.config.limits, self._inventory.naming.is_file_name)
        seen = set()
        for listing in walk.listings():
            self._inventory.take(listing, look, due_folders)
            seen.add(listing.folder)
        for folder in self._inventory.known_folders() - seen:
            self._inventory.drop_folder(folder, look)
        self._unreadable = frozenset(walk.unreadable) | (frozenset({""}) if walk.truncated else frozenset())
        self._shelf.problems.report("walk", walk.faults, moment.now)
        changed = self._conclude(look)
        self._accept_removal(root)
        result = self._result(changed, moment)
        self._shelf.rebase()
        self._inventory.tidy()
        self._save_sometimes()
        return result

    def _update(self, changed: Collection[str], moment: Moment) -> ScanResult:
        reading = self._reading
        if self._last is None or reading is None or self._root_seen is None:
            return self._full(moment)
        changes = sort_changes(changed, self._inventory.folders, self._options.burst)
        if changes.everything:
            return self._full(moment)
        look = Look(moment, reading.rules, self._take_due(moment))
        for path in look.due:
            changes.add(path)
        if changes.ledger:
            look.touched |= self._read_ledger(moment)
        self._was_full = False
        try:
            self._refresh(changes, look)
        except (FolderAppeared, OSError):
            # Not an error: something between the folders changed, and the walk finds out what.
            self._inventory.doubt(changes.files)
            self._doubted |= look.touched
            self._doubted_folders |= look.odd
            return self._full(moment)
        result = self._result(self._conclude(look), moment)
        self._save_sometimes()
        return result

    def _refresh(self, changes: Changes, look: Look) -> None:
        """Look at changed files; raise ``FolderAppeared`` or ``OSError`` when the tree must be walked."""
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(root)
            if (status.st_dev, status.st_ino) != self._root_seen:
                raise FolderAppeared
            for folder, names in changes.files.items():
                descriptor = open_folder(root, folder)
                try:
                    self._inventory.refresh(folder, names, descriptor, look)
                finally:
                    os.close(descriptor)
        finally:
            os.close(root)

    def _take_due(self, moment: Moment) -> frozenset[str]:
        """Return the groups to look at again; they are put back when they are not done."""
        due = {path for path, at in self._due.items() if at <= moment.now}
        # Whoever has all the patience waits for what an impatient scan began as well.
        for path in self._digests.running() if moment.patience is None else self._digests.finished():
            if path in self._inventory.groups:
                due.add(path)
            else:
                self._digests.drop_finished(path)
        return frozenset(due)

    def _read_rules(self, moment: Moment) -> Reading:
        texts = dict(self._texts)
        reading = self._rulebook.read(texts, moment.now)
        self._require_same_tree()
        before, self._reading = self._reading, reading
        self._cache_outdated |= texts != self._texts
        self._texts = texts
        self._shelf.problems.report("rules", self._reading.problems, moment.now)
        if before is None or before.rules_for_files != self._reading.rules_for_files:
            self._inventory.reset(self._reading.config.components)
        return self._reading

    def _read_ledger(self, moment: Moment) -> set[str]:
        """Read the ledgers if their files changed; return the releases for which that makes a difference (L7)."""
        files = ledger.identities(self._root, self._state)
        if files == self._ledger_files:
            return set()
        try:
            read = ledger.load(self._root, self._state)
        except (OSError, NotRegular) as error:
            message = f"the ledger of published releases cannot be read: {error}; what was read before counts"
            self._shelf.problems.report("ledger", [Fault(ledger.NAME, "damaged_ledger", message)], moment.now)
            return set()
        faults = [Fault(item.file, "damaged_ledger", item.message) for item in read.damage]
        self._shelf.problems.report("ledger", faults, moment.now)
        before, self._ledger, self._ledger_files = self._ledger, dict(read.digests), files
        for identifier, digest in self._unrecorded.items():
            self._ledger.setdefault(identifier, digest)
        if before == self._ledger:
            return set()
        differing = {identifier for identifier, _ in before.items() ^ self._ledger.items()}
        return differing & self._inventory.identifiers()

    def _conclude(self, look: Look) -> set[str]:
        """Judge what was looked at, and settle who is a release; return what may have changed in the catalogue."""
        moment = look.moment
        if look.rules is not None:
            memos = [job.group.memo for job in look.jobs]
            again = examine(look.jobs, self._digests, look.rules, moment)
            self._cache_outdated |= any(job.group.memo is not memo for job, memo in zip(look.jobs, memos, strict=True))
            self._require_same_tree()
            self._reschedule(look.due, again)
        else:
            self._due = {}
        for folder in look.odd:
            self._shelf.problems.report(("names", folder), self._inventory.odd.get(folder, {}).values(), moment.now)
        claims = {}
        for identifier in look.touched:
            published = self._ledger.get(identifier)
            claimants = self._inventory.claimants(identifier)
            claim = settle(claimants, published)
            if published is None and claim.release is not None and claim.verified:
                self._unrecorded[identifier] = claim.release.sha256
                # From now on it is published, which decides about the others.
                claim = settle(claimants, claim.release.sha256)
            claims[identifier] = claim
        self._record(moment)
        self._doubted, self._doubted_folders = set(), set()
        self._last = moment.now
        return self._shelf.place(claims, self._unreadable, moment.now)

    def _reschedule(self, due: Collection[str], again: dict[str, datetime | None]) -> None:
        for path in due:
            self._due.pop(path, None)
            self._digests.drop_finished(path)
        for path, at in again.items():
            if at is None:
                self._due.pop(path, None)
            else:
                self._due[path] = at
        if len(self._due) and any(path not in self._inventory.groups for path in self._due):
            self._due = {path: at for path, at in self._due.items() if path in self._inventory.groups}

    def _record(self, moment: Moment) -> None:
        """Write new releases into the ledger before anybody is told of them (L7)."""
        if not self._unrecorded:
            return
        self._ledger |= self._unrecorded
        if self._options.observer:
            return
        try:
            ledger.record(self._root, self._state, self._unrecorded)
        except (OSError, NotRegular) as error:
            message = f"new releases cannot be recorded: {error}; they are offered, but after a restart not protected"
            fault = Fault(ledger.NAME, "ledger_not_written", message)
            self._shelf.problems.report("ledger writing", [fault], moment.now)
            return
        self._shelf.problems.report("ledger writing", (), moment.now)
        self._unrecorded = {}

    def _accept_removal(self, root: int) -> None:
        """Take the operator's confirmation once; where it cannot be removed it is remembered (L26)."""
        if self._options.observer:
            return
        try:
            marker = entry_at(root, MARKER)
        except OSError:
            return
        if not isinstance(marker, FileIdentity) or marker == self._marker_seen:
            return
        if self._shelf.guard.active:
            _log.warning("removal of %d of %d releases accepted", *self._shelf.guard.missing)
            self._shelf.guard.accept()
        self._marker_seen = marker
        with contextlib.suppress(OSError):  # a read-only tree: remembered above
            os.unlink(MARKER, dir_fd=root)

    def _result(self, changed: set[str], moment: Moment) -> ScanResult:
        reading = self._reading
        if reading is None:
            return self._shelf.result(changed, None, moment.now)
        return self._shelf.result(changed, (reading.config, reading.policy), moment.now)

    @property
    def _unsaved(self) -> bool:
        return self._state is not None and (self._digests.changed or self._cache_outdated)

    def _save_sometimes(self) -> None:
        if not self._unsaved:
            return
        now = monotonic()
        if self._saved_at is None or now - self._saved_at >= self._options.save_seconds:
            self._saved_at = now
            if not (self._shelf.guard.active or self._unreadable):
                self._digests.forget_but(self._inventory.groups.keys())
                self._inventory.memos = {}
            self._save()

    def _save(self) -> None:
        if self._state is None:
            return
        memos = self._inventory.all_memos()
        files = {
            path: cache.CachedFile(known.identity, known.digest.sha256, memos.get(path))
            for path, known in self._digests.all_known().items()
        }
        self._digests.changed = self._cache_outdated = False
        if not cache.save(self._state, cache.Cache(files, self._texts)):
            self._digests.changed = True


def _known(file: cache.CachedFile) -> Known:
    return Known(file.identity, Hashed(file.sha256))
