"""What may be on a disk after the power is cut between two recorded calls.

The rules, weaker than those of any journalling file system that we know (ext4, xfs, btrfs):

- A flush of a file makes its bytes and mode durable, not its name. A flush of a folder makes durable what happened to
  the names in it, not its own name in the folder above.
- What happened to names and was not flushed may be lost, each call by itself, but a call happens whole (renames are
  atomic), and after those before it that are about the same name or the same node.
- Bytes that were not flushed are there, or the old ones are (a new file is empty), or NULs are in their place, or half
  of them are there; each file by itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from crash.calls import Call, Moded, Name, New, Resized, Synced, Written
from crash.disk import Disk, Node, changed

FATES = ("kept", "lost", "zeroed", "torn")
"""What becomes of bytes that were not flushed; ``mixed``: another fate for each file."""
SMALL = 4
"""So many names that are not durable are taken in every combination; of more, a choice."""
RANDOM_CHOICES = 6


@dataclass(frozen=True, slots=True)
class Image:
    """A disk after a power cut behind the ``at``-th call."""

    at: int
    choice: str
    """Which of the calls that were not durable happened, as bits."""
    fate: str
    disk: Disk

    @property
    def label(self) -> str:
        return f"{self.at}.{self.choice}.{self.fate}"


@dataclass
class Cutter:
    """Follows the recorded calls, and knows what is durable."""

    start: Disk
    nodes: dict[int, Node] = field(init=False)
    """As if every flush had been done just now: bytes and modes that were flushed, names that were."""
    bytes_now: dict[int, Node] = field(default_factory=dict)
    """Nodes whose bytes or mode were changed and not flushed, as the agent sees them."""
    waiting: list[tuple[Name, ...]] = field(default_factory=list)
    """What happened to names and is not durable, oldest first."""

    def __post_init__(self) -> None:
        self.nodes = dict(self.start.nodes)

    def follow(self, call: Call) -> None:
        """Take a call into account."""
        names = tuple(change for change in call.changes if isinstance(change, Name))
        for change in call.changes:
            match change:
                case New(node, kind, mode, inode, target):
                    self.nodes[node] = Node(kind, mode, inode, target=target, names={} if kind == "folder" else None)
                case Written() | Resized() | Moded():
                    self.bytes_now[change.node] = changed(self._now(change.node), change)
                case Synced(None):
                    self._flush_all()
                case Synced(node):
                    self._flush(node)
        if names:
            self.waiting.append(names)

    def as_seen(self) -> Disk:
        """Return the disk as the agent sees it, without a loss."""
        nodes = dict(self.nodes)
        for names in self.waiting:
            _apply(nodes, names)
        merged = {node: replace(now, names=nodes[node].names) for node, now in self.bytes_now.items()}
        return Disk(nodes | merged, self.start.root)

    def images(self, at: int) -> Iterator[Image]:
        """Yield what may be there if the power goes now."""
        chance = random.Random(at)  # noqa: S311 -- the same every time
        for chosen in self._choices(chance):
            nodes = dict(self.nodes)
            for index in chosen:
                _apply(nodes, self.waiting[index])
            bits = "".join("1" if index in chosen else "0" for index in range(len(self.waiting)))
            yield from self._fated(at, bits or "-", nodes, chance)

    def _fated(self, at: int, bits: str, nodes: dict[int, Node], chance: random.Random) -> Iterator[Image]:
        if not self.bytes_now:
            yield Image(at, bits, "kept", Disk(nodes, self.start.root))
            return
        fates = {fate: dict.fromkeys(self.bytes_now, fate) for fate in FATES}
        if len(self.bytes_now) > 1:
            fates["mixed"] = {node: chance.choice(FATES) for node in self.bytes_now}
        for name, fate_of in fates.items():
            fated = {node: _fated(self.nodes[node], self.bytes_now[node], fate) for node, fate in fate_of.items()}
            # Names come from ``nodes``: a folder has a mode of its own as well.
            merged = {node: replace(after, names=nodes[node].names) for node, after in fated.items()}
            yield Image(at, bits, name, Disk(nodes | merged, self.start.root))

    def _choices(self, chance: random.Random) -> Iterator[tuple[int, ...]]:
        """Yield sets of waiting calls that may have happened without the others."""
        count, seen = len(self.waiting), set[tuple[int, ...]]()
        everything = range(count)
        wanted: list[Sequence[int]] = [everything[:end] for end in range(count + 1)]
        if count <= SMALL:
            wanted += [[index for index in everything if bits >> index & 1] for bits in range(1 << count)]
        else:
            # The newest are what the call at hand is about; combinations of older ones were tried when they were new.
            wanted += [[index for index in everything if index != lost] for lost in everything[-SMALL:]]
            wanted += [[kept] for kept in everything[-SMALL:]]
            wanted += [[index for index in everything if chance.random() < 0.5] for _ in range(RANDOM_CHOICES)]
        for one in wanted:
            closed = self._closed(one)
            if closed not in seen:
                seen.add(closed)
                yield closed

    def _closed(self, wanted: Sequence[int]) -> tuple[int, ...]:
        """Return a choice without the calls that could not have happened without others that were not chosen."""
        missing: set[tuple[int, str] | int] = set()
        kept = []
        for index, names in enumerate(self.waiting):
            about = _about(names)
            if index in wanted and not about & missing:
                kept.append(index)
            else:
                missing |= about
        return tuple(kept)

    def _flush(self, node: int) -> None:
        now = self.bytes_now.pop(node, None)
        if now is not None:
            self.nodes[node] = replace(now, names=self.nodes[node].names)
        # Whatever these names depend on is durable with them.
        needed: set[tuple[int, str] | int] = set()
        flushed = []
        for names in reversed(self.waiting):
            if any(name.folder == node for name in names) or _about(names) & needed:
                needed |= _about(names)
                flushed.append(names)
        for names in reversed(flushed):
            _apply(self.nodes, names)
            self.waiting.remove(names)

    def _flush_all(self) -> None:
        for node in list(self.bytes_now):
            self._flush(node)
        for names in self.waiting:
            _apply(self.nodes, names)
        self.waiting.clear()

    def _now(self, node: int) -> Node:
        return self.bytes_now.get(node, self.nodes[node])


def _about(names: tuple[Name, ...]) -> set[tuple[int, str] | int]:
    """Return what a call is about: names in folders, and the nodes that they lead to."""
    return {(name.folder, name.name) for name in names} | {name.node for name in names if name.node is not None}


def _apply(nodes: dict[int, Node], names: tuple[Name, ...]) -> None:
    for name in names:
        before = dict(nodes[name.folder].names or {})
        if name.node is None:
            before.pop(name.name, None)
        else:
            before[name.name] = name.node
        nodes[name.folder] = replace(nodes[name.folder], names=before)


def _fated(durable: Node, now: Node, fate: str) -> Node:
    match fate:
        case "kept":
            return now
        case "lost":
            return durable
        case "zeroed":
            same = len(durable.data) if now.data.startswith(durable.data) else 0
            return replace(durable, data=now.data[:same] + bytes(len(now.data) - same))
        case _:
            same = len(durable.data) if now.data.startswith(durable.data) else 0
            return replace(now, data=now.data[: same + (len(now.data) - same) // 2])
