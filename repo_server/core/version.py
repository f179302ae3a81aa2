"""Versions: SemVer 2.0 without build metadata, ordered by precedence (L5)."""

from __future__ import annotations

from functools import lru_cache
from typing import Self, TypeAlias

import semver

from repo_server.core.errors import VersionInvalid

MAX_LENGTH = 64
"""Characters in a version; the source schema's column holds 50, names and URLs stay short."""

_Identifier: TypeAlias = tuple[int, int, str]
_Key: TypeAlias = tuple[int, int, int, int, tuple[_Identifier, ...]]


class Version:
    """A version, compared by SemVer precedence; immutable and hashable."""

    __slots__ = ("precedence", "text")

    text: str
    precedence: _Key

    def __init__(self, text: str) -> None:
        """Parse; raise ``VersionInvalid`` for anything but SemVer 2.0 without build metadata (L5)."""
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "precedence", _precedence(text))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Version is immutable; {name} cannot be set to {value!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Version is immutable; {name} cannot be deleted")

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.text,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.precedence == other.precedence

    def __lt__(self, other: object) -> bool:
        return self.precedence < other.precedence if isinstance(other, Version) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.precedence <= other.precedence if isinstance(other, Version) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return self.precedence > other.precedence if isinstance(other, Version) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return self.precedence >= other.precedence if isinstance(other, Version) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.precedence)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Version({self.text!r})"


@lru_cache(maxsize=65536)
def _precedence(text: str) -> _Key:
    expected = "expected SemVer like 1.2.3 or 1.2.3-rc.1, without build metadata"
    if not text.isascii() or len(text) > MAX_LENGTH:
        raise VersionInvalid("invalid_version", f"{text!r:.80} is not a version: {expected}")
    try:
        parsed = semver.Version.parse(text)
    except ValueError:
        raise VersionInvalid("invalid_version", f"{text!r} is not a version: {expected}") from None
    # Python's `$` also matches before a final newline, and the library's pattern ends in one.
    if parsed.build is not None or str(parsed) != text:
        raise VersionInvalid("invalid_version", f"{text!r} is not a version: {expected}")
    identifiers = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in (parsed.prerelease or "").split(".") if part
    )
    return parsed.major, parsed.minor, parsed.patch, 0 if identifiers else 1, identifiers
