"""Which product a release file belongs to, and which release keys are known for it (L20, L22)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from repo_server.core.keys import ReleaseKeys
from repo_server.core.statement import check_product
from repotool.errors import ToolError, Usage
from repotool.initialise import ROOT_JSON
from repotool.tree import Tree, has_root, keys_in, open_tree, tree_keys

_MAX_ROOT_BYTES = 512_000


@dataclass(frozen=True, slots=True)
class Product:
    """A product's name, its release keys if they are known, and the tree that said so."""

    name: str
    keys: ReleaseKeys | None = None
    tree: Tree | None = None


def find_product(name: str | None, tree: Tree | None, key_file: Path | None, release: Path, now: datetime) -> Product:
    """Return the product of a release file; raise ``Usage`` if nothing says it.

    The tree says it, given or around the file; else ``name``; else the ``root.json`` beside the key.
    """
    tree = tree if tree is not None else _tree_around(release)
    if tree is not None and has_root(tree.root):
        keys = tree_keys(tree, now)
        if name is not None and name != keys.product:
            raise Usage(f"--product says {name}, {tree.root} is a tree of {keys.product}; leave one of them out")
        return Product(keys.product, keys, tree)
    if name is not None:
        return Product(check_product(name), None, tree)
    beside = None if key_file is None else key_file.parent / ROOT_JSON
    if beside is not None and beside.is_file():
        keys = keys_in(beside, _read(beside), now)
        return Product(keys.product, keys, tree)
    raise Usage(f"which product does {release} belong to? say --tree DIR or --product NAME")


def _tree_around(release: Path) -> Tree | None:
    return next((open_tree(folder) for folder in release.resolve().parents if has_root(folder)), None)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MAX_ROOT_BYTES + 1)
    if len(data) > _MAX_ROOT_BYTES:
        raise ToolError(f"{path} is too large for a TUF root")
    return data
