"""What the agent's calls change on a disk, as far as a power cut could take it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class New:
    """A file, folder or link came into being; no name leads to it yet."""

    node: int
    kind: str
    """``file``, ``folder`` or ``link``."""
    mode: int
    inode: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a folder leads to something else now, or (``None``) to nothing."""

    folder: int
    name: str
    node: int | None


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes were written into a file."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resized:
    """A file was cut or extended."""

    node: int
    size: int


@dataclass(frozen=True, slots=True)
class Moded:
    """Permission bits were set."""

    node: int
    mode: int


@dataclass(frozen=True, slots=True)
class Synced:
    """A file's bytes, or a folder's names, are durable; ``None``: everything is."""

    node: int | None


Change: TypeAlias = New | Name | Written | Resized | Moded | Synced


@dataclass(frozen=True, slots=True)
class Call:
    """One call that may change something. All of its ``Name`` changes happen together or not at all."""

    name: str
    path: str
    """Below the endpoint's root, or what a process call is about."""
    moment: float
    """Monotonic seconds."""
    changes: tuple[Change, ...] = ()


def renumbered(call: Call, same: Mapping[int, int]) -> Call:
    """Return a call about the nodes of another recording; those that are not in ``same`` are new, and no other's."""

    def number(node: int | None) -> int | None:
        return node if node is None else same.get(node, -node)

    changes = []
    for change in call.changes:
        node = number(change.node)
        if isinstance(change, Name):
            changes.append(replace(change, node=node, folder=number(change.folder)))
        else:
            changes.append(replace(change, node=node))
    return replace(call, changes=tuple(changes))
