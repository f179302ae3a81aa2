"""Globs of ``package.toml``: ``*`` and ``?`` stay within one folder, ``**`` crosses folders (L42). Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_IN_ONE_FOLDER = {"*": "[^/]*", "?": "[^/]"}


def matches(glob: str, path: str) -> bool:
    """Whether a path with ``/`` matches a glob as a whole; case counts."""
    return _compiled(glob).fullmatch(path) is not None


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    *folders, last = [_part(part) for part in glob.split("/")]
    inner = "".join("(?:[^/]+/)*" if part is None else f"{part}/" for part in folders)
    return re.compile(inner + (".+" if last is None else last), re.DOTALL)


def _part(part: str) -> str | None:
    """Return the pattern of one part; ``None`` is any number of folders."""
    if part == "**":
        return None
    return "".join(_IN_ONE_FOLDER.get(char) or re.escape(char) for char in part)
