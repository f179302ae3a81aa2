"""Which bytes of a file a request asks for: preconditions and ranges of RFC 9110 (NFR-PER-002). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

_BYTES = re.compile(r"bytes=(.*)", re.IGNORECASE)
_ONE = re.compile(r"(\d*)-(\d*)", re.ASCII)
_MAX_DIGITS = 19
"""Of a number that says anything; one with more lies behind the end of every file."""
MAX_RANGES = 16
"""More in one request are a known way to make a server work: it gets the whole file, as the RFC allows."""
_NEAR = 128
"""Bytes between two ranges that cost less than another part's head."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Everything, with status 200."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``first`` to ``last``, both included, with status 206."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Parts:
    """Several parts that do not touch, in the order of the request, with status 206."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class NotModified:
    """The client has it (304)."""


@dataclass(frozen=True, slots=True)
class PreconditionFailed:
    """The client wants another one (412)."""


@dataclass(frozen=True, slots=True)
class NotSatisfiable:
    """No byte of the range exists (416)."""


Selection: TypeAlias = Whole | Part | Parts | NotModified | PreconditionFailed | NotSatisfiable


@dataclass(frozen=True, slots=True)
class Conditions:
    """The request headers that select."""

    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None


def select(conditions: Conditions, etag: str, size: int, *, head: bool = False) -> Selection:
    """Decide what to send of a file of ``size`` bytes with a strong ``etag`` (RFC 9110, section 13.2.2).

    Ranges that overlap or nearly touch become one. A malformed Range is ignored. A Range means nothing for HEAD.
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
    specs = [] if match is None else [spec for spec in map(str.strip, match.group(1).split(",")) if spec]
    if not 1 <= len(specs) <= MAX_RANGES:
        return Whole()
    wanted: list[Part] = []
    for spec in specs:
        one = _ONE.fullmatch(spec)
        if one is None or not any(one.groups()):
            return Whole()
        first, last = (digits.lstrip("0") or digits[:1] for digits in one.groups())
        if first and last and (len(last), last) < (len(first), first):
            return Whole()
        part = _part(first, last, size)
        wanted += [] if part is None else [part]
    parts = _merged(wanted)
    if not parts:
        return NotSatisfiable()
    return parts[0] if len(parts) == 1 else Parts(tuple(parts))


def _part(first: str, last: str, size: int) -> Part | None:
    """Return the bytes of ``first-last``, ``first-`` or ``-length`` that there are, if any."""
    if not first:
        length = min(_number(last), size)
        return Part(size - length, size - 1) if length else None
    if _number(first) >= size:
        return None
    return Part(_number(first), min(_number(last), size - 1) if last else size - 1)


def _number(digits: str) -> int:
    """Return a number without leading zeros; what is beyond every file's size need not be exact."""
    return int(digits[: _MAX_DIGITS + 1])


def _merged(wanted: Iterable[Part]) -> list[Part]:
    """Join what overlaps or is near; the joined stands where its first part did."""
    parts: list[Part] = []
    for part in wanted:
        joined = part
        place = len(parts)
        for index in range(len(parts) - 1, -1, -1):
            other = parts[index]
            if other.first - _NEAR <= joined.last + 1 and joined.first - _NEAR <= other.last + 1:
                joined = Part(min(other.first, joined.first), max(other.last, joined.last))
                del parts[index]
                place = index
        parts.insert(place, joined)
    return parts


def lists(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a precondition's list of ETags has this one; ``weak``: also as a weak one."""
    if header.strip() == "*":
        return True
    tags = [tag.strip() for tag in header.split(",")]
    return etag in ([tag.removeprefix("W/") for tag in tags] if weak else tags)
