"""A downloads tree as repotool opens it: its settings and its release keys (L22, L30)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from repo_server.core.errors import PolicyInvalid
from repo_server.core.keys import ReleaseKeys
from repo_server.core.policy import TreeConfig, parse_repo_toml
from repo_server.tree import roots, treeio
from repotool.errors import ToolError

CONFIG_NAME = "repo.toml"
FIRST_ROOT = roots.path_of(1)
MAX_CONFIG_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree's folder and its settings."""

    root: Path
    config: TreeConfig


def has_root(root: Path) -> bool:
    """Whether a tree has any TUF root, good or bad."""
    return bool(roots.identities(root))


def open_tree(root: Path) -> Tree:
    """Open a tree; raise ``ToolError`` or ``PolicyInvalid`` if it is none."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise ToolError(f"the tree {root} {what}; make one with `repotool init {root} --keys DIR`")
    try:
        data, _ = treeio.read_small(root, CONFIG_NAME, MAX_CONFIG_BYTES)
    except FileNotFoundError:
        if not has_root(root):
            raise ToolError(
                f"{root} is not a downloads tree: it has neither {CONFIG_NAME} nor {FIRST_ROOT}; "
                f"make it one with `repotool init {root} --keys DIR`"
            ) from None
        return Tree(root, TreeConfig())
    return Tree(root, parse_repo_toml(data))


def open_to_look(root: Path) -> Tree:
    """Open a tree like ``open_tree``, also with broken settings: a look at it says so among the rest (L30)."""
    try:
        return open_tree(root)
    except (PolicyInvalid, treeio.TreeError, PermissionError):
        return Tree(root, TreeConfig())


def tree_keys(tree: Tree, now: datetime) -> ReleaseKeys:
    """Return the release keys that the newest TUF root names; raise ``ToolError`` (L22)."""
    return trusted_keys(roots.read(tree.root, now), str(tree.root), tree.config)


def keys_in(path: Path, data: bytes, now: datetime) -> ReleaseKeys:
    """Return the release keys that a ``root.json`` names; raise ``ToolError`` (L22)."""
    reading = roots.follow({}, now, pinned=data)
    return trusted_keys(reading, str(path), TreeConfig())


def trusted_keys(reading: roots.RootReading, where: str, config: TreeConfig) -> ReleaseKeys:
    """Return a reading's keys; raise ``ToolError`` if there are none, or another product's than ``repo.toml`` says."""
    if reading.trusted is None:
        why = "; ".join(f"{problem.path or where}: {problem.message}" for problem in reading.problems)
        raise ToolError(f"{where} has no usable TUF root, so nothing can be verified: {why}")
    keys = reading.trusted.keys
    if config.product is not None and config.product != keys.product:
        raise ToolError(
            f"{CONFIG_NAME} says product {config.product!r}, the TUF root says {keys.product!r}; correct {CONFIG_NAME}"
        )
    return keys
