"""What a changed path means for a scan: nothing, one file, the ledger, or everything. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field

from repo_server.core.names import RESERVED_AT_ROOT, is_temporary
from repo_server.tree import ledger
from repo_server.tree.removal import MARKER

_ROOT_METADATA = re.compile(r"metadata(?:/[0-9]+\.root\.json)?")
_RULES = frozenset({"repo.toml", "policy", "policy/channels.toml"})


@dataclass(slots=True)
class Changes:
    """Changed paths, sorted by what they ask for."""

    everything: bool = False
    """Rules, folders, or more than can be followed one by one."""
    ledger: bool = False
    files: dict[str, set[str]] = field(default_factory=dict)
    """Folder → names in it."""

    def add(self, path: str) -> None:
        """Ask for one file."""
        folder, _, name = path.rpartition("/")
        self.files.setdefault(folder, set()).add(name)


def sort_changes(changed: Collection[str], folders: Container[str], burst: int) -> Changes:
    """Sort paths relative to the root; ``folders`` are those that the last scan knew."""
    result = Changes()
    if len(changed) > burst:
        result.everything = True
        return result
    for path in changed:
        first, _, rest = path.partition("/")
        if path in _RULES or path == MARKER or path in folders or _ROOT_METADATA.fullmatch(path):
            result.everything = True
        elif path == ledger.NAME:
            result.ledger = True
        elif first in RESERVED_AT_ROOT or _ignored((first, *rest.split("/"))):
            continue
        elif path.rpartition("/")[0] not in folders:
            result.everything = True
        else:
            result.add(path)
    return result


def _ignored(parts: Iterable[str]) -> bool:
    return any(is_temporary(part) for part in parts)
