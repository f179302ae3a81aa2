"""A disk as values: taken from a folder, changed by recorded calls, and made into a folder again."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crash.calls import Moded, Resized, Written
from crash.recorder import node_of


@dataclass(frozen=True, slots=True)
class Node:
    """A file, folder or link. Replaced whole."""

    kind: str
    mode: int
    inode: int
    """As the agent sees it, see ``Eyes``."""
    data: bytes = b""
    target: str = ""
    names: Mapping[str, int] | None = None
    """Of a folder: name → node."""


@dataclass(frozen=True, slots=True)
class Eyes:
    """Lets the agent see folders under other inode numbers, so that a copy of a disk is the same disk to it.

    Without that, an agent that knows its folders by number would find none in a copy. ``generation`` keeps folders that
    are new apart from those of other copies, for numbers are given out again.
    """

    inodes: Mapping[int, int] = field(default_factory=dict)
    """Inode here → inode on the disk that was copied."""
    generation: int = 0

    def see(self, inode: int) -> int:
        """Return what the agent sees."""
        return self.inodes.get(inode, inode + (self.generation << 32))

    def put_on(self) -> None:
        """Change what ``pathlib`` says in this process, for good."""
        plain = pathlib.Path.stat

        def seen(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
            found = plain(path, follow_symlinks=follow_symlinks)
            if not stat.S_ISDIR(found.st_mode):
                return found
            fields: list[Any] = list(found)
            fields[1] = self.see(found.st_ino)
            named = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
            return os.stat_result(fields, named)

        pathlib.Path.stat = seen  # type: ignore[method-assign]
        pathlib.Path.lstat = lambda path: path.stat(follow_symlinks=False)  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class Known:
    """Files that were seen, each content under one number."""

    _numbers: dict[tuple[object, ...], int] = field(default_factory=dict)
    _by_identity: dict[int, tuple[Node, int]] = field(default_factory=dict)

    def number(self, node: Node) -> int:
        """Return the number of a file's content and mode."""
        seen = self._by_identity.get(id(node))
        if seen is not None:
            return seen[1]
        facts = (node.kind, node.mode, node.data, node.target)
        number = self._numbers.setdefault(facts, len(self._numbers))
        # The node is kept, so that no other gets its identity.
        self._by_identity[id(node)] = (node, number)
        return number


@dataclass(frozen=True, slots=True)
class Disk:
    """Nodes by number, and which of them is the endpoint's root."""

    nodes: Mapping[int, Node]
    root: int

    @classmethod
    def of(cls, folder: Path, eyes: Eyes) -> Disk:
        """Return what lies in a folder."""
        nodes: dict[int, Node] = {}
        return cls(nodes, _take(folder, nodes, eyes))

    def walk(self, node: int | None = None, path: str = "") -> Iterator[tuple[str, Node]]:
        """Yield every path that a name leads to, folders before what is in them."""
        for name, inner in sorted((self.nodes[self.root if node is None else node].names or {}).items()):
            where = f"{path}/{name}" if path else name
            yield where, self.nodes[inner]
            if self.nodes[inner].kind == "folder":
                yield from self.walk(inner, where)

    def numbers(self, node: int | None = None, path: str = "") -> Iterator[tuple[str, int]]:
        """Yield every path and its node, the root first."""
        number = self.root if node is None else node
        yield path, number
        for name, inner in (self.nodes[number].names or {}).items():
            yield from self.numbers(inner, f"{path}/{name}")

    def key(self, known: Known, node: int | None = None) -> object:
        """Return what tells this disk from others of the same ``known``."""
        found = self.nodes[self.root if node is None else node]
        if found.names is None:
            return known.number(found)
        # Also which folder it is: the agent knows them by number.
        inner = tuple((name, self.key(known, found.names[name])) for name in sorted(found.names))
        return found.inode, found.mode, inner

    def make(self, folder: Path) -> dict[int, int]:
        """Make it into a new folder; return the inode of each folder there → the one that it had."""
        folder.mkdir(parents=True)
        inodes = {folder.stat().st_ino: self.nodes[self.root].inode}
        modes = []
        for path, node in self.walk():
            where = folder / path
            if node.kind == "folder":
                where.mkdir()
                inodes[where.stat().st_ino] = node.inode
                modes.append((where, node.mode))
            elif node.kind == "link":
                where.symlink_to(node.target)
            else:
                descriptor = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                os.write(descriptor, node.data)
                os.fchmod(descriptor, node.mode)
                os.close(descriptor)
        for where, mode in modes:
            where.chmod(mode)
        return inodes


def changed(node: Node, change: Written | Resized | Moded) -> Node:
    """Return a node after a change of its own."""
    if isinstance(change, Moded):
        return replace(node, mode=change.mode)
    if isinstance(change, Resized):
        return replace(node, data=node.data[: change.size].ljust(change.size, b"\0"))
    before = node.data.ljust(change.offset, b"\0")
    return replace(node, data=before[: change.offset] + change.data + before[change.offset + len(change.data) :])


def _take(path: Path, nodes: dict[int, Node], eyes: Eyes) -> int:
    status = path.lstat()
    number, mode, inode = node_of(status.st_ino), stat.S_IMODE(status.st_mode), eyes.see(status.st_ino)
    if stat.S_ISDIR(status.st_mode):
        names = {inner.name: _take(inner, nodes, eyes) for inner in path.iterdir()}
        nodes[number] = Node("folder", mode, inode, names=names)
    elif stat.S_ISLNK(status.st_mode):
        nodes[number] = Node("link", mode, inode, target=os.readlink(path))
    else:
        nodes[number] = Node("file", mode, inode, path.read_bytes())
    return number
