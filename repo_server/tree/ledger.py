"""The digest ledger: every release that ever was, and its bytes (L7).

``TREE/.published`` has one line per release, ``<sha256>  <release id>``, and only grows. A reader that may not write
into the tree keeps a file of the same form in its state folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from repo_server.core.model import COMPONENT_PATTERN, Arch, Os
from repo_server.tree.treeio import FileIdentity, NotRegular, open_beneath, open_or_create, sync_folder

NAME = ".published"
STATE_NAME = "published"

_LINE = re.compile(
    rf"([0-9a-f]{{64}})  ({COMPONENT_PATTERN}-(?:{'|'.join(Os)})-(?:{'|'.join(Arch)})-[0-9A-Za-z.-]{{5,64}})"
)
_LINES = re.compile(f"^{_LINE.pattern}\n", re.MULTILINE)
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Damage:
    """A line of a ledger that says nothing, or contradicts an earlier one."""

    file: str
    """``.published``, or the path of the one in the state folder."""
    line: int
    """Counted from 1."""
    message: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the ledgers say together; where two lines contradict each other the earlier one counts, the tree's first."""

    digests: Mapping[str, str]
    """Release id → sha256."""
    damage: tuple[Damage, ...] = ()


def read(tree: Path, state: Path | None) -> dict[str, str]:
    """Return release id → sha256 of every release that ever was (L7); raise ``OSError``, ``NotRegular``."""
    return dict(load(tree, state).digests)


def load(tree: Path, state: Path | None) -> Ledger:
    """Read the tree's ledger and the state folder's; raise ``OSError``, ``NotRegular`` (L7).

    A last line without line feed is a write that never finished: nobody was told of it, so it counts for nothing.
    """
    digests: dict[str, str] = {}
    damage: list[Damage] = []
    for folder, name, shown in _files(tree, state):
        with contextlib.suppress(FileNotFoundError):
            damage += _merge(digests, _contents(folder, name), shown)
    return Ledger(digests, tuple(damage))


def identities(tree: Path, state: Path | None) -> tuple[FileIdentity | None, ...]:
    """Return the identities of the ledgers' files: while they stay the same, so does what ``load`` returns."""
    found: list[FileIdentity | None] = []
    for folder, name, _ in _files(tree, state):
        try:
            found.append(FileIdentity.of((folder / name).lstat()))
        except OSError:
            found.append(None)
    return tuple(found)


def record(tree: Path, state: Path | None, entries: Mapping[str, str]) -> None:
    """Append releases (id → sha256) that the ledger does not have yet, durably (L7).

    Idempotent, and safe beside other writers. Where the tree is read-only the line goes to the state folder. Raises
    ``OSError`` when it can be written nowhere, ``NotRegular`` when something else has the ledger's name, and
    ``ValueError`` for an entry that could not be read back.
    """
    for identifier, digest in entries.items():
        if not _LINE.fullmatch(f"{digest}  {identifier}"):
            raise ValueError(f"{identifier!r} with digest {digest!r} cannot stand in the ledger")
    if not entries:
        return
    try:
        _append(tree, NAME, entries)
    except OSError as error:
        if error.errno not in _READ_ONLY or state is None:
            raise
        state.mkdir(parents=True, exist_ok=True)
        _append(state, STATE_NAME, entries)


def _files(tree: Path, state: Path | None) -> Iterator[tuple[Path, str, str]]:
    yield tree, NAME, NAME
    if state is not None:
        yield state, STATE_NAME, str(state / STATE_NAME)


def _merge(digests: dict[str, str], data: bytes, shown: str) -> list[Damage]:
    """Add a ledger's lines to ``digests`` and return those that cannot be used."""
    if not digests and _plain(digests, data):
        return []
    damage = []
    lines = data.split(b"\n")[:-1]
    for number, raw in enumerate(lines, 1):
        match = _LINE.fullmatch(raw.decode("ascii", "replace"))
        if match is None:
            damage.append(Damage(shown, number, f"line {number} is not <sha256>  <release id>: {raw[:80]!r}"))
            continue
        digest, identifier = match.groups()
        known = digests.setdefault(identifier, digest)
        if known != digest:
            message = f"line {number} gives {identifier} the digest {digest}, but it was published as {known}"
            damage.append(Damage(shown, number, message))
    return damage


def _plain(digests: dict[str, str], data: bytes) -> bool:
    """Take over a ledger in which nothing is wrong, at once, and say so; nearly all are."""
    if not data.isascii():
        return False
    pairs = _LINES.findall(data.decode("ascii"))
    found = {identifier: digest for digest, identifier in pairs}
    if len(found) != len(pairs) or len(pairs) != data.count(b"\n"):
        return False
    digests |= found
    return True


def _contents(folder: Path, name: str) -> bytes:
    with os.fdopen(open_beneath(folder, name), "rb") as file:
        return file.read()


def _append(folder: Path, name: str, entries: Mapping[str, str]) -> None:
    path = folder / name
    descriptor = _open(path)
    try:
        # The lock keeps a writer from healing away the line that another one is just writing.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.ftruncate(descriptor, whole)
        present: dict[str, str] = {}
        _merge(present, data, name)
        lines = "".join(f"{digest}  {key}\n" for key, digest in entries.items() if key not in present)
        _write(descriptor, lines.encode(), whole)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(folder)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    message = f"{path} is not a regular file; the ledger of published releases belongs there"
    try:
        descriptor = open_or_create(path, flags, 0o644)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise NotRegular(message) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(message)
    return descriptor


def _write(descriptor: int, data: bytes, size_before: int) -> None:
    """Write everything or nothing: a full disk must not leave half a line behind."""
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, size_before)
        raise
