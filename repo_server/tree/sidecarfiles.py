"""Reads the sidecars of a release file, through the descriptor of their folder (L10 to L16, L29)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from repo_server.core.errors import SidecarInvalid
from repo_server.core.model import Channel, Meta
from repo_server.core.names import SidecarKind
from repo_server.core.sidecars import (
    parse_blocked,
    parse_channel,
    parse_meta,
    parse_rollout,
    parse_sha256,
    parse_sig,
)
from repo_server.tree.digests import racy
from repo_server.tree.groups import Group, Sidecars, not_regular
from repo_server.tree.treeio import FileIdentity, read_up_to
from repo_server.tree.walk import UNREADABLE_FILE, Entry, Fault, Odd, unreadable_file

_NO_META = Meta()
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PARSERS: Mapping[SidecarKind, Callable[[bytes, str], Any]] = {
    SidecarKind.SHA256: parse_sha256,
    SidecarKind.SIG: lambda data, _: parse_sig(data),
    SidecarKind.CHANNEL: lambda data, _: parse_channel(data),
    SidecarKind.META: lambda data, _: parse_meta(data),
    SidecarKind.ROLLOUT: lambda data, _: parse_rollout(data),
    SidecarKind.BLOCKED: lambda data, _: parse_blocked(data),
}


def read_sidecars(group: Group, descriptor: int, limit: int, now_ns: int) -> tuple[Sidecars, bool]:
    """Read the sidecars through the folder's descriptor, unless they are what they were (L10 to L16, L29).

    Also returns whether one of them may have changed, or change yet, without that showing in its times.
    """
    if group.memo is not None and group.memo.files == group.files:
        return group.memo.sidecars, False
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    unsure = False
    for kind in SidecarKind:
        entry = group.files.get(kind)
        if entry is None:
            continue
        try:
            data, same = _read(group, kind, entry, descriptor, limit)
            unsure |= not same
            values[kind] = _PARSERS[kind](data, group.filename)
        except FileNotFoundError:
            unsure = True
        except _Refused as refusal:
            faults.append(refusal.fault)
            unsure |= refusal.unsure
        except SidecarInvalid as error:
            faults.append(Fault(group.path, error.code, error.message))
        else:
            if kind is SidecarKind.SIG:
                values["digest"] = hashlib.sha256(data).hexdigest()
        unsure |= isinstance(entry, FileIdentity) and racy(entry, now_ns)
    return _sidecars(values, _one_per_code(faults)), unsure


class _Refused(Exception):
    """A sidecar cannot be read."""

    def __init__(self, fault: Fault, *, unsure: bool = False) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.unsure = unsure
        """It is worth another look soon."""


def _read(group: Group, kind: SidecarKind, entry: Entry, descriptor: int, limit: int) -> tuple[bytes, bool]:
    """Return one sidecar's bytes, and whether it still is the file that was listed.

    Raises ``_Refused``, or ``FileNotFoundError`` when it has just gone.
    """
    path = f"{group.path}{kind}"
    if isinstance(entry, Odd):
        raise _Refused(Fault(group.path, "not_a_regular_file", not_regular(path, entry).message))
    if entry.size > limit:
        raise _Refused(_too_large(group, kind, entry.size, limit))
    try:
        file = os.open(f"{group.filename}{kind}", _FILE, dir_fd=descriptor)
        try:
            same = FileIdentity.of(os.fstat(file)) == entry
            data = read_up_to(file, limit + 1)
        finally:
            os.close(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        fault = Fault(group.path, UNREADABLE_FILE, unreadable_file(path, error).message)
        raise _Refused(fault) from error
    if len(data) > limit:
        raise _Refused(_too_large(group, kind, len(data), limit), unsure=True)
    return data, same


def _too_large(group: Group, kind: SidecarKind, size: int, limit: int) -> Fault:
    return Fault(group.path, "sidecar_too_large", f"{kind} has {size} bytes; at most {limit} are read")


def _one_per_code(faults: list[Fault]) -> tuple[Fault, ...]:
    """Join what is wrong in the same way with several sidecars: path and code name a problem."""
    joined: dict[str, Fault] = {}
    for fault in faults:
        known = joined.get(fault.code)
        joined[fault.code] = fault if known is None else replace(known, message=f"{known.message}; {fault.message}")
    return tuple(joined.values())


def _sidecars(values: Mapping[str, Any], faults: tuple[Fault, ...]) -> Sidecars:
    return Sidecars(
        sha256=values.get(SidecarKind.SHA256),
        signatures=values.get(SidecarKind.SIG),
        signatures_digest=values.get("digest", ""),
        channel=values.get(SidecarKind.CHANNEL, Channel.STABLE),
        meta=values.get(SidecarKind.META, _NO_META),
        rollout=values.get(SidecarKind.ROLLOUT),
        block=values.get(SidecarKind.BLOCKED),
        faults=faults,
    )
