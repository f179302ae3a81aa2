"""Which bytes of a file a request asks for: preconditions and ranges of RFC 9110 (NFR-PER-002). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

_BYTES = re.compile(r"bytes=(.*)", re.IGNORECASE)
_ONE = re.compile(r"(\d*)-(\d*)", re.ASCII)
_MAX_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Whole:
    """Everything, with status 200."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``first`` to ``last``, both included, with status 206."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class NotModified:
    """The client has it (304)."""


@dataclass(frozen=True, slots=True)
class PreconditionFailed:
    """The client wants another one (412)."""


@dataclass(frozen=True, slots=True)
class NotSatisfiable:
    """No byte of the range exists (416)."""


Selection: TypeAlias = Whole | Part | NotModified | PreconditionFailed | NotSatisfiable


@dataclass(frozen=True, slots=True)
class Conditions:
    """The request headers that select."""

    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None


def select(conditions: Conditions, etag: str, size: int, *, head: bool = False) -> Selection:
    """Decide what to send of a file of ``size`` bytes with a strong ``etag`` (RFC 9110, section 13.2.2).

    Several ranges are answered with the whole file, as the RFC allows: no agent asks for them, and they are a known
    way to make a server work. A malformed Range is ignored, as it says too. A Range means nothing for HEAD.
    """
    if conditions.if_match is not None and not lists(conditions.if_match, etag, weak=False):
        return PreconditionFailed()
    if conditions.if_none_match is not None and lists(conditions.if_none_match, etag, weak=True):
        return NotModified()
    if conditions.range is None or head:
        return Whole()
    if conditions.if_range is not None and conditions.if_range.strip() != etag:
        return Whole()
    return _range(conditions.range, size)


def _range(text: str, size: int) -> Selection:
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        return Whole()
    one = _ONE.fullmatch(match.group(1).strip())
    if one is None or any(len(digits) > _MAX_DIGITS for digits in one.groups()):
        return Whole()
    first, last = one.groups()
    if not first:
        if not last:
            return Whole()
        length = min(int(last), size)
        return Part(size - length, size - 1) if length else NotSatisfiable()
    if last and int(last) < int(first):
        return Whole()
    if int(first) >= size:
        return NotSatisfiable()
    return Part(int(first), min(int(last), size - 1) if last else size - 1)


def lists(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a precondition's list of ETags has this one; ``weak``: also as a weak one."""
    if header.strip() == "*":
        return True
    tags = [tag.strip() for tag in header.split(",")]
    return etag in ([tag.removeprefix("W/") for tag in tags] if weak else tags)
