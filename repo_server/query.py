"""A request's query: parameters that are known, each at most once, and what they mean (EH-SRV-001)."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

from repo_server.http import Call, HttpError

PAGE = 100
MAX_PAGE = 1000
"""Entries of one answer; a longer list is asked for in pages."""

_Member = TypeVar("_Member", bound=enum.StrEnum)


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters that a request gives. Every method raises ``HttpError`` 422 for a value that means nothing."""

    values: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """Return a parameter as it stands."""
        return self.values.get(name)

    def limit(self) -> int:
        """Return how many entries a page may have."""
        text = self.values.get("limit", str(PAGE))
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PAGE)) and 1 <= int(text) <= MAX_PAGE):
            raise HttpError(422, "invalid_limit", f"limit must be a number from 1 to {MAX_PAGE}")
        return int(text)

    def member(self, name: str, kind: type[_Member]) -> _Member | None:
        """Return a parameter that is one of a few words."""
        text = self.values.get(name)
        try:
            return None if text is None else kind(text)
        except ValueError:
            raise invalid(name, f"{text!r:.80} is not one of {', '.join(kind)}") from None

    def flag(self, name: str) -> bool | None:
        """Return a parameter that is ``true`` or ``false``."""
        text = self.values.get(name)
        if text not in {None, "true", "false"}:
            raise invalid(name, f"{text!r:.80} is not true or false")
        return None if text is None else text == "true"


def read_query(call: Call, known: Collection[str]) -> Query:
    """Take a request's query apart; raise ``HttpError`` 422 for a parameter that is unknown or stands twice.

    A filter that is spelled wrong must not look like one that everything passes.
    """
    values: dict[str, str] = {}
    for name, value in parse_qsl(call.scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name not in known:
            raise invalid(name, f"there is no such parameter; expected one of {', '.join(sorted(known))}")
        if name in values:
            raise invalid(name, "it stands there twice")
        values[name] = value
    return Query(values)


def invalid(name: str, why: str) -> HttpError:
    """Return the 422 for a parameter."""
    return HttpError(422, "invalid_parameter", f"{name!r:.80}: {why}")
