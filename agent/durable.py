"""State files that survive power cuts and garbage: atomic, checksummed, with a previous copy (promise 1).

A state file is a plain JSON object that people and scripts can read, with two keys more: ``format`` and ``checksum``
(SHA-256 over the rest in canonical form). Beside it, ``<name>.prev`` is the version before.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import hashlib
import itertools
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import local_failure
from agent.platform.files import FILES

FORMAT = 1
MAX_BYTES = 16 * 1024 * 1024
_FORMAT_KEY, _CHECKSUM_KEY = "format", "checksum"
_TEMPORARY_SUFFIX = ".tmp"
_DAMAGING = frozenset({errno.ELOOP, errno.EIO, errno.ENXIO})


class Source(enum.StrEnum):
    """Which copy a payload came from."""

    CURRENT = "current"
    PREVIOUS = "previous"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a state file says, and what was wrong with it."""

    payload: dict[str, Any] | None
    """``None``: there is no usable copy; start from the default."""
    damage: str | None
    """A sentence for the log (code STATE_DAMAGED), or ``None``; a file that never was is no damage."""
    source: Source


class _Damaged(Exception):
    """A copy is unusable; the message completes "<file> …"."""


def save(path: Path, payload: Mapping[str, Any], *, keep_previous: bool = True) -> None:
    """Replace a state file: afterwards, also after a power cut, there is the old one or the new one.

    ``payload`` holds what JSON can hold; ``checksum`` and ``format`` are reserved. Mode 0600.
    Raises ``LocalFailure``; nothing has changed then.
    """
    data = _encode(payload)
    if keep_previous:
        current = _usable(path)
        if current is not None:
            # The later folder sync makes this name durable as well; without it there is an older previous copy.
            _replace(previous_of(path), current, 0o600, sync_names=False)
    replace_file(path, data)


def load(path: Path, *, fall_back: bool = True) -> Loaded:
    """Read a state file, or its previous copy when the file is missing or damaged (NFR-REL-003).

    Never raises for what is in the files; ``LocalFailure`` when the system refuses to read them.
    """
    try:
        data = _read(path)
        if data is not None:
            return Loaded(_decode(data), None, Source.CURRENT)
        damage = f"{path} is missing"
    except _Damaged as error:
        damage = f"{path} {error}"
        data = b""
    if fall_back:
        try:
            previous = _read(previous_of(path))
            if previous is not None:
                return Loaded(_decode(previous), f"{damage}; its previous copy is used", Source.PREVIOUS)
        except _Damaged as error:
            return Loaded(None, f"{damage}, and its previous copy {error}", Source.NONE)
    if data is None:
        return Loaded(None, None, Source.NONE)
    return Loaded(None, f"{damage}; there is no previous copy" if fall_back else damage, Source.NONE)


def remove(path: Path) -> None:
    """Remove a state file and its previous copy, durably; what is not there is removed already."""
    try:
        # The other order could bring the previous copy back to life.
        _make_room(previous_of(path))
        _make_room(path)
        previous_of(path).unlink(missing_ok=True)
        sync_folder(path.parent)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise local_failure(error, f"remove {path}") from error


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace any file whole and durably; raise ``LocalFailure``."""
    _replace(path, data, mode, sync_names=True)


def previous_of(path: Path) -> Path:
    """Return where the previous copy of a state file lies."""
    return path.with_name(f"{path.name}.prev")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; raise ``OSError``."""
    FILES.sync_folder(folder)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove temporary files that a killed writer left in a folder; only while holding the lock.

    ``name``: only those of this file, where others keep theirs beside it.
    """
    try:
        for left in folder.glob(f".{name}.*{_TEMPORARY_SUFFIX}"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise local_failure(error, f"clean up {folder}") from error


def _replace(path: Path, data: bytes, mode: int, *, sync_names: bool) -> None:
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(_TEMPORARY_SUFFIX, f".{path.name}.", path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            FILES.set_mode(descriptor, mode)
            FILES.sync(descriptor)
        _make_room(path)
        FILES.replace(Path(temporary), path)
        temporary = None
        if sync_names:
            sync_folder(path.parent)
    except OSError as error:
        raise local_failure(error, f"write {path}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _make_room(path: Path) -> None:
    """Move a folder that is in a file's place aside; nobody knows what is in it, so it stays beside."""
    if path.is_dir() and not path.is_symlink():
        free = next(number for number in itertools.count(1) if not _aside(path, number).exists())
        path.rename(_aside(path, free))


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.folder-{number}")


def _usable(path: Path) -> bytes | None:
    try:
        data = _read(path)
        if data is not None:
            _decode(data)
    except _Damaged:
        return None  # it must not push out a good previous copy
    return data


def _read(path: Path) -> bytes | None:
    try:
        descriptor = FILES.open_at_once(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(error, path) from error
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _Damaged("is not a regular file")
        file = stack.enter_context(os.fdopen(descriptor, "rb", closefd=False))
        try:
            data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise _unreadable(error, path) from error
    if len(data) > MAX_BYTES:
        raise _Damaged(f"has more than {MAX_BYTES} bytes")
    return data


def _unreadable(error: OSError, path: Path) -> Exception:
    if error.errno in _DAMAGING:
        return _Damaged(f"cannot be read ({error.strerror})")
    return local_failure(error, f"read {path}")


def _encode(payload: Mapping[str, Any]) -> bytes:
    if _FORMAT_KEY in payload or _CHECKSUM_KEY in payload:
        raise RuntimeError(f"{_FORMAT_KEY!r} and {_CHECKSUM_KEY!r} are added by save(); the payload may not have them")
    # Through JSON once, so that tuples and enums are what a reader will find.
    plain = json.loads(json.dumps(payload, allow_nan=False))
    whole = {**plain, _FORMAT_KEY: FORMAT}
    return json.dumps({**whole, _CHECKSUM_KEY: _checksum(whole)}, indent=2, allow_nan=False).encode() + b"\n"


def _decode(data: bytes) -> dict[str, Any]:
    if not data:
        raise _Damaged("is empty")
    if not data.strip(b"\0"):
        raise _Damaged("holds only NUL bytes")
    try:
        whole = json.loads(data.decode())
        if not isinstance(whole, dict):
            raise _Damaged("is not a JSON object")
        checksum = whole.pop(_CHECKSUM_KEY, None)
        right = checksum == _checksum(whole)
    except (ValueError, RecursionError):
        raise _Damaged("is not JSON, or cut off") from None
    version = whole.pop(_FORMAT_KEY, None)
    if type(version) is int and version > FORMAT:
        raise _Damaged(f"was written by a newer version (format {version}, this one knows {FORMAT})")
    if not right or version != FORMAT:
        raise _Damaged("does not match its checksum; it was changed by hand or by a fault")
    return whole


def _checksum(whole: dict[str, Any]) -> str:
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
