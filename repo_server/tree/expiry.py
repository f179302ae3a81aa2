"""When the tree's TUF metadata ends, for a metric and a warning before agents stop updating (design §4)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec

from repo_server.tree import roots
from repo_server.tree.treeio import FileIdentity, TreeError, read_small

WARN_BEFORE = {"timestamp": timedelta(0), "root": timedelta(days=30)}
"""The timestamp is renewed by the origin; a root is renewed by people, who need time."""
TIMESTAMP = f"{roots.FOLDER}/timestamp.json"


class _Signed(msgspec.Struct):
    expires: Annotated[datetime, msgspec.Meta(tz=True)]
    """With its zone, as TUF has it: one without cannot be compared with ours."""


class _Metadata(msgspec.Struct):
    signed: _Signed


_decoder = msgspec.json.Decoder(_Metadata)


@dataclass(slots=True)
class Expiry:
    """Reads when the timestamp and the newest root end, as far as they are there."""

    tree: Path
    clock: Callable[[], datetime]
    ends: dict[str, datetime] = field(default_factory=dict)
    _seen: dict[str, tuple[str, FileIdentity | None]] = field(default_factory=dict)

    def refresh(self) -> None:
        """Look again at what changed. What cannot be read counts as not there; verifying it is not done here."""
        found = roots.identities(self.tree)
        newest = max(found, default=0)
        present = {
            "root": (roots.path_of(newest), found.get(newest)),
            "timestamp": (TIMESTAMP, _identity(self.tree / TIMESTAMP)),
        }
        for role, (path, identity) in present.items():
            if self._seen.get(role) == (path, identity):
                continue
            self._seen[role] = path, identity
            self.ends = {name: end for name, end in self.ends.items() if name != role}
            with contextlib.suppress(OSError, TreeError, msgspec.MsgspecError):
                data, _ = read_small(self.tree, path, roots.MAX_ROOT_BYTES)
                self.ends = {**self.ends, role: _decoder.decode(data).signed.expires}

    def ending(self) -> str | None:
        """Say which role ends soon, or has."""
        now = self.clock()
        late = [f"{role} on {end:%F %R} UTC" for role, end in self.ends.items() if end - now < WARN_BEFORE[role]]
        return f"metadata ends, and agents stop updating: {', '.join(late)}" if late else None


def _identity(path: Path) -> FileIdentity | None:
    try:
        return FileIdentity.of(path.lstat())
    except OSError:
        return None
