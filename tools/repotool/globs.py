"""Globs of ``package.toml``: ``*`` and ``?`` stay within one folder, ``**`` crosses folders (L42). Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_MEANING = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def matches(glob: str, path: str) -> bool:
    """Whether a path with ``/`` matches a glob as a whole."""
    return _compiled(glob).fullmatch(path) is not None


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(
        "".join(_MEANING.get(token) or re.escape(token) for token in _TOKEN.findall(glob)),
        re.DOTALL,
    )
