"""What the scanner knows of a tree: folders, groups of files, and names that mean nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

from repo_server.core.names import ReleaseName, SidecarKind
from repo_server.tree.examine import Job, Moment
from repo_server.tree.groups import Files, Group, Memo
from repo_server.tree.naming import Naming, split, too_deep
from repo_server.tree.rules import Rules
from repo_server.tree.sidecarfiles import read_sidecars
from repo_server.tree.walk import Entry, Fault, Listing, Odd, depth, entry_at, join

_SUFFIXES = ("", *(str(kind) for kind in SidecarKind))
_MEMO = 1000
_Key = TypeVar("_Key")


class FolderAppeared(Exception):
    """What changed is a folder, so the tree must be walked."""


@dataclass(slots=True)
class Look:
    """One look at a tree: what applies to it, and what it found so far."""

    moment: Moment
    rules: Rules | None
    """``None``: files are listed, not judged."""
    due: frozenset[str] = frozenset()
    """Paths of groups to be judged again though their files are the same."""
    jobs: list[Job] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    """Ids of releases that may have changed."""
    odd: set[str] = field(default_factory=set)
    """Folders whose meaningless names changed."""


@dataclass(slots=True)
class Inventory:
    """The files of a tree as they were last seen."""

    naming: Naming = field(default_factory=lambda: Naming(()))
    folders: dict[str, dict[str, Entry]] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    odd: dict[str, dict[str, Fault]] = field(default_factory=dict)
    """Folder → name → what is wrong with the name."""
    _members: dict[str, set[str]] = field(default_factory=dict)
    memos: dict[str, Memo] = field(default_factory=dict)
    """What was known of groups before they are seen, by path."""
    _paths: dict[str, set[str]] = field(default_factory=dict)

    def reset(self, components: tuple[str, ...]) -> None:
        """Judge everything anew at the next look: the rules changed, or a look was cut short."""
        self.naming = Naming(components)
        self.folders = {}
        for group in self.groups.values():
            group.outcome = None

    def doubt(self, folders: Iterable[str]) -> None:
        """Do not believe that these folders are as they were last seen: a look at them was cut short."""
        for folder in folders:
            self.folders.pop(folder, None)

    def known_folders(self) -> set[str]:
        """Return every folder that something is known of."""
        return {*self.folders, *self._members, *self.odd}

    def all_memos(self) -> dict[str, Memo]:
        """Return what may be kept for the next start, by path."""
        return self.memos | {path: group.memo for path, group in self.groups.items() if group.memo is not None}

    def claimants(self, identifier: str) -> list[Group]:
        """Return the groups whose name is of one release."""
        return [self.groups[path] for path in self._paths.get(identifier, ())]

    def identifiers(self) -> AbstractSet[str]:
        """Return every release that a file in the tree is named for."""
        return self._paths.keys()

    def take(self, listing: Listing, look: Look, due_folders: Collection[str]) -> None:
        """Take over one folder's listing; what is as it was costs a comparison."""
        folder = listing.folder
        if self.folders.get(folder) == listing.entries and folder not in due_folders:
            return
        self.folders[folder] = listing.entries
        limit = look.rules.config.limits.max_depth if look.rules is not None else None
        if limit is not None and depth(folder) > limit:
            self._replace_groups(folder, {}, listing.descriptor, look)
            self._set_odd(folder, too_deep(folder, listing.entries, limit), look)
            return
        found = self.naming.sort(folder, listing.entries)
        self._replace_groups(folder, found.groups, listing.descriptor, look)
        self._set_odd(folder, found.faults, look)

    def drop_folder(self, folder: str, look: Look) -> None:
        """Forget a folder that is gone."""
        self.folders.pop(folder, None)
        self._replace_groups(folder, {}, -1, look)
        self._set_odd(folder, {}, look)

    def refresh(self, folder: str, names: Iterable[str], descriptor: int, look: Look) -> None:
        """Look at names in one folder again; raise ``FolderAppeared`` or ``OSError``, then only a full look helps."""
        stems = set()
        for name in names:
            stem = split(name)[0]
            meaning = self.naming.meaning(stem)
            if isinstance(meaning, ReleaseName):
                stems.add(stem)
            elif meaning is not None:
                self._refresh_odd(folder, name, descriptor, look)
        for stem in stems:
            self._refresh_group(folder, stem, descriptor, look)

    def tidy(self) -> None:
        """Forget the meaning of names that are gone, once there are many."""
        stems = {group.path.rpartition("/")[2] for group in self.groups.values()}
        stems.update(split(name)[0] for names in self.odd.values() for name in names)
        if self.naming.size > 2 * len(stems) + _MEMO:
            self.naming.forget(stems)

    def _refresh_group(self, folder: str, stem: str, descriptor: int, look: Look) -> None:
        entries = self.folders[folder]
        files: Files = {}
        for suffix in _SUFFIXES:
            name = stem + suffix
            entry = entry_at(descriptor, name)
            if entry is None:
                entries.pop(name, None)
            else:
                entries[name] = entry
                files[suffix] = entry
        meaning = self.naming.meaning(stem)
        if files and isinstance(meaning, ReleaseName):
            self._examine(folder, stem, meaning, files, descriptor, look)
        else:
            self._drop_group(join(folder, stem), look)

    def _refresh_odd(self, folder: str, name: str, descriptor: int, look: Look) -> None:
        entry = entry_at(descriptor, name)
        faults = dict(self.odd.get(folder, {}))
        faults.pop(name, None)
        if entry is None:
            self.folders[folder].pop(name, None)
        elif entry == Odd("a folder"):
            raise FolderAppeared
        else:
            self.folders[folder][name] = entry
            faults |= self.naming.sort(folder, {name: entry}).faults
        self._set_odd(folder, faults, look)

    def _replace_groups(
        self, folder: str, found: dict[str, tuple[ReleaseName, Files]], descriptor: int, look: Look
    ) -> None:
        gone = self._members.get(folder, set()) - {join(folder, stem) for stem in found}
        for path in gone:
            self._drop_group(path, look)
        for stem, (name, files) in found.items():
            self._examine(folder, stem, name, files, descriptor, look)

    def _examine(self, folder: str, stem: str, name: ReleaseName, files: Files, descriptor: int, look: Look) -> None:
        path = join(folder, stem)
        group = self.groups.get(path)
        if group is None:
            identifier = stem.removesuffix(name.extension)
            group = self.groups[path] = Group(
                path, folder, identifier, name, files, look.moment.now, self.memos.pop(path, None)
            )
            self._members.setdefault(folder, set()).add(path)
            self._paths.setdefault(group.id, set()).add(path)
        elif group.files == files and group.outcome is not None and path not in look.due:
            return
        elif _payload(group.files) != _payload(files):
            group.seen = look.moment.now
        group.files = files
        # Until it has one again: a look that is cut short must not leave an old outcome on new files.
        group.outcome = None
        look.touched.add(group.id)
        if look.rules is None:
            return
        limit = look.rules.config.limits.max_sidecar_bytes
        sidecars, unsure = read_sidecars(group, descriptor, limit, look.moment.now_ns)
        look.jobs.append(Job(group, sidecars, unsure))

    def _drop_group(self, path: str, look: Look) -> None:
        group = self.groups.pop(path, None)
        if group is None:
            return
        _discard(self._members, group.folder, path)
        _discard(self._paths, group.id, path)
        look.touched.add(group.id)

    def _set_odd(self, folder: str, faults: dict[str, Fault], look: Look) -> None:
        if self.odd.get(folder, {}) == faults:
            return
        look.odd.add(folder)
        if faults:
            self.odd[folder] = faults
        else:
            del self.odd[folder]


def _payload(files: Files) -> tuple[Entry | None, Entry | None]:
    return files.get(""), files.get(SidecarKind.SHA256)


def _discard(table: dict[_Key, set[str]], key: _Key, path: str) -> None:
    table[key].discard(path)
    if not table[key]:
        del table[key]
