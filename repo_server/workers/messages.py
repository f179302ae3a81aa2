"""What the main process and its workers tell each other."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from repo_server.core.model import Problem, Release
from repo_server.core.policy import ChannelPolicy, TreeConfig
from repo_server.core.version import Version
from repo_server.credentials import LastGood
from repo_server.settings import Settings
from repo_server.store.database import State
from repo_server.telemetry.conditions import Condition
from repo_server.tree.treeio import FileIdentity


class Begin(msgspec.Struct, frozen=True, tag=True):
    """To a worker, first of all: what it is part of."""

    settings: Settings
    listener: int
    """Descriptor of the listening socket."""
    last_good: LastGood
    """Of files that may be bad just now."""


class News(msgspec.Struct, frozen=True, tag=True):
    """To workers: the catalogue, or what changed in it."""

    generation: int
    since: datetime
    after: int | None
    """The generation that this changes; ``None``: this is everything."""
    gone: tuple[str, ...]
    """Paths of releases."""
    added: tuple[Release, ...]
    """Also those that changed."""
    config: TreeConfig
    policy: ChannelPolicy | None
    """``None``: as before."""
    problems: tuple[Problem, ...] | None
    """All of them; ``None``: as before."""
    identities: dict[str, FileIdentity]
    unidentified: tuple[str, ...]
    """Paths that have no identity any more."""


class DatabaseIs(msgspec.Struct, frozen=True, tag=True):
    """To workers: how the database is; it is migrated when it is ready."""

    state: State
    detail: str


class Conditioned(msgspec.Struct, frozen=True, tag=True):
    """To workers: what is wrong with the main process, or with other workers."""

    conditions: tuple[Condition, ...]


class ReadAgain(msgspec.Struct, frozen=True, tag=True):
    """To workers: open the audit's file and read secrets, tokens and certificate again (SIGHUP)."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it has a catalogue and accepts."""


class Alive(msgspec.Struct, frozen=True, tag=True):
    """From a worker, every second: its event loop turns."""


class Rescan(msgspec.Struct, frozen=True, tag=True):
    """From a worker: somebody found something other than the catalogue says."""

    path: str | None
    """``None``: look at everything."""


class Collect(msgspec.Struct, frozen=True, tag=True):
    """From a worker that was asked for figures: have all of us say theirs; and from the main process to all."""

    ticket: int


class Figures(msgspec.Struct, frozen=True, tag=True):
    """From a worker: its figures; ``ticket`` is that of the ``Collect``."""

    ticket: int
    data: bytes


class Collected(msgspec.Struct, frozen=True, tag=True):
    """To the worker that asked: everybody's figures."""

    ticket: int
    parts: dict[str, bytes]
    """``main``, or a worker's number → its figures."""


Message: TypeAlias = (
    Begin | News | DatabaseIs | Conditioned | ReadAgain | Ready | Alive | Rescan | Collect | Figures | Collected
)


def encode(message: Message) -> bytes:
    """Return the bytes of a message."""
    return _encoder.encode(message)


def decode(data: bytes) -> Message:
    """Return the message; raise ``msgspec.MsgspecError``, ``VersionInvalid``."""
    message: Message = _decoder.decode(data)
    return message


def _plain(value: object) -> object:
    if isinstance(value, Version):
        return value.text
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise NotImplementedError(f"{type(value)} does not belong into a message")


def _value(kind: type, value: object) -> object:
    if kind is Version and isinstance(value, str):
        return Version(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{kind} does not belong into a message")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoder = msgspec.msgpack.Decoder(Message, dec_hook=_value)
