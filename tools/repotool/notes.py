"""What an operator says about a release, as a ``.meta`` (L13). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from repo_server.core.errors import FormatError
from repo_server.core.model import Requirement
from repo_server.core.sidecars import parse_meta, parse_requirements
from repotool.errors import Usage

_REQUIRES = re.compile(r"\s*([^\s<>=]+)\s*>=\s*(\S+)\s*")
_SHORT = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Notes:
    """What is said on the command line."""

    title: str | None = None
    url: str | None = None
    requires: tuple[Requirement, ...] = ()


NO_NOTES = Notes()


def parse_requires(texts: Iterable[str]) -> tuple[Requirement, ...]:
    """Read ``probe>=1.2`` (1.2 means 1.2.0); raise ``Usage``."""
    pairs = []
    for text in texts:
        match = _REQUIRES.fullmatch(text)
        if match is None:
            raise Usage(f"--requires {text!r}: expected COMPONENT>=VERSION, like 'probe>=1.2.0'")
        name, version = match.groups()
        while _SHORT.fullmatch(version):
            version += ".0"
        pairs.append((name, version))
    try:
        return parse_requirements(pairs, "--requires")
    except FormatError as error:
        raise Usage(error.message) from None


def compose(notes: Notes, own: Iterable[Requirement], now: datetime) -> bytes:
    """Return a ``.meta``; of two requirements for one component the higher counts. Raises ``Usage``.

    ``own`` is what ``package.toml`` requires.
    """
    highest: dict[str, Requirement] = {}
    for item in (*own, *notes.requires):
        if item.name not in highest or item.min_version > highest[item.name].min_version:
            highest[item.name] = item
    content = {
        "title": notes.title,
        "release_notes_url": notes.url,
        "published_at": now.replace(microsecond=0),
        "requires": [{"name": item.name, "min_version": str(item.min_version)} for item in highest.values()],
    }
    data = msgspec.json.encode({key: value for key, value in content.items() if value})
    data = msgspec.json.format(data, indent=2) + b"\n"
    try:
        parse_meta(data)
    except FormatError as error:
        raise Usage(error.message) from None
    return data
