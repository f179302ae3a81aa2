"""What the agent accepts: the release keys of its pinned root decide, never the server's words (design §4, promise 2).

The chain of TUF metadata from the pinned root joins ``accept`` in a later version of this module.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.floor import Floors
from repo_server.core.keys import ReleaseKeys
from repo_server.core.model import Platform, ReleaseId
from repo_server.core.version import Version
from repo_server.core.wire import Action, Update


@dataclass(frozen=True, slots=True)
class PinnedRoot:
    """The root of trust that the agent was provisioned with (L22)."""

    keys: ReleaseKeys
    version: int
    expires: datetime


@dataclass(frozen=True, slots=True)
class Accepted:
    """A release that enough release keys signed, and that may be installed here."""

    id: ReleaseId
    sha256: str
    size: int
    action: Action
    key_ids: tuple[str, ...]
    """Of the signatures that verified."""


def load_root(path: Path) -> PinnedRoot:
    """Read the pinned ``root.json``; raise ``ConfigInvalid`` (ROOT_INVALID, CONFIG_UNSAFE)."""
    raise NotImplementedError


def parse_root(data: bytes) -> PinnedRoot:
    """Read a root that is signed by a threshold of its own keys; raise ``ConfigInvalid`` (ROOT_INVALID)."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Trust:
    """The pinned root and the floors: everything that a decision about an offer rests on."""

    root: PinnedRoot
    floors: Floors

    def accept(
        self, update: Update, platform: Platform, installed: Version | None, requested: Collection[str]
    ) -> Accepted:
        """Return what may be downloaded and installed; raise ``TrustRefused``.

        ``installed`` is the component's version, ``requested`` are the names that were asked for.
        """
        raise NotImplementedError
