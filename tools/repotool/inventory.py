"""The release files of a tree by name: which are there, with which sidecars. Reads no release file (L1 to L4, L29).

The scanner verifies what a tree offers; this is for operations that only need to find files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repo_server.core.errors import NameInvalid
from repo_server.core.model import Channel
from repo_server.core.names import RESERVED_AT_ROOT, ReleaseName, SidecarKind, is_temporary, parse_release_name
from repo_server.core.policy import TreeConfig
from repo_server.core.version import Version
from repo_server.tree.treeio import FileIdentity
from repotool.errors import ToolError

_NEIGHBOURS = 2


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """A release file and the sidecars that lie beside it."""

    path: str
    """Relative to the tree's root, with ``/``."""
    name: ReleaseName
    sidecars: frozenset[SidecarKind]
    identity: FileIdentity

    def sidecar(self, kind: SidecarKind) -> str:
        """Return the path of a sidecar, whether it is there or not."""
        return f"{self.path}{kind}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which release files an operation is about; ``None`` and an empty tuple mean any."""

    version: Version | None = None
    components: tuple[str, ...] = ()
    os: str | None = None
    arch: str | None = None
    channel: Channel | None = None

    def names(self, name: ReleaseName) -> bool:
        """Whether a release is meant, by its name alone; the channel is not in the name."""
        platform = name.id.platform
        return (
            (self.version is None or name.id.version == self.version)
            and (not self.components or name.id.component in self.components)
            and (self.os is None or platform.os == self.os)
            and (self.arch is None or platform.arch == self.arch)
        )

    def __str__(self) -> str:
        parts = (", ".join(self.components), self.os, self.arch)
        of = " ".join(part for part in parts if part)
        return f"{self.version or 'any version'}{f' of {of}' if of else ''}"


def inventory(root: Path, config: TreeConfig) -> list[ReleaseFile]:
    """Return the release files of a tree, by path; other names are the doctor's business."""
    return sorted(_walk(root, "", config, config.limits.max_depth), key=lambda file: file.path)


def select(files: list[ReleaseFile], selection: Selection) -> list[ReleaseFile]:
    """Return the files that are meant; raise ``ToolError`` naming the nearest versions if there are none."""
    found = [file for file in files if selection.names(file.name)]
    if not found:
        raise ToolError(f"there is no release {selection} in this tree; {_nearest(files, selection)}")
    return found


def _nearest(files: list[ReleaseFile], selection: Selection) -> str:
    anything = Selection(None, selection.components, selection.os, selection.arch)
    versions = sorted({file.name.id.version for file in files if anything.names(file.name)})
    if not versions:
        everything = len({file.name.id.version for file in files})
        return f"nothing matches but the version either ({everything} versions in the tree; see `repotool ls`)"
    wanted = selection.version
    if wanted is None:
        return "see `repotool ls`"
    below = [version for version in versions if version < wanted][-_NEIGHBOURS:]
    above = [version for version in versions if version > wanted][:_NEIGHBOURS]
    same = [version for version in versions if version == wanted]
    return f"the nearest are {', '.join(map(str, below + same + above))}"


def _walk(root: Path, prefix: str, config: TreeConfig, depth: int) -> Iterator[ReleaseFile]:
    with os.scandir(root / prefix) as listing:
        items = {item.name: item for item in listing if not is_temporary(item.name)}
    for name, item in items.items():
        if not prefix and name in RESERVED_AT_ROOT:
            continue
        if item.is_dir(follow_symlinks=False):
            if depth:
                yield from _walk(root, f"{prefix}{name}/", config, depth - 1)
        elif item.is_file(follow_symlinks=False):
            try:
                parsed = parse_release_name(name, config.components)
            except NameInvalid:
                continue
            beside = frozenset(kind for kind in SidecarKind if f"{name}{kind}" in items)
            identity = FileIdentity.of(item.stat(follow_symlinks=False))
            yield ReleaseFile(f"{prefix}{name}", parsed, beside, identity)
