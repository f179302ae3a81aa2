"""Globs of ``package.toml``: ``*`` and ``?`` stay within one folder, ``**`` crosses folders (L42)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


def matches(glob: str, path: str) -> bool:
    """Whether a glob matches a path relative to the payload folder; both with ``/``, case counts."""
    return _compiled(glob).fullmatch(path) is not None


def matches_any(globs: Iterable[str], path: str) -> bool:
    """Whether one of several globs matches."""
    return any(matches(glob, path) for glob in globs)


def last_match(modes: Iterable[tuple[str, int]], path: str) -> int | None:
    """Return the permission bits of the last glob that matches, or ``None``."""
    found = None
    for glob, mode in modes:
        if matches(glob, path):
            found = mode
    return found


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    parts = glob.split("/")
    pattern = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            # A folder that "data/**" names is not itself one of the files in it.
            pattern += ".+" if last else "(?:[^/]+/)*"
        else:
            pattern += "".join(_character(char) for char in part) + ("" if last else "/")
    return re.compile(pattern, re.DOTALL)


def _character(char: str) -> str:
    if char == "*":
        return "[^/]*"
    return "[^/]" if char == "?" else re.escape(char)
