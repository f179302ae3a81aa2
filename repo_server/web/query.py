"""A request's query: parameters that are known, each at most once, and what they mean (EH-SRV-001)."""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, TypeVar
from urllib.parse import parse_qsl

import msgspec

from repo_server.core.errors import VersionInvalid
from repo_server.core.model import COMPONENT_PATTERN
from repo_server.core.version import Version
from repo_server.web.http import Call, HttpError

PAGE = 100
MAX_PAGE = 1000
"""Entries of one answer; a longer list is asked for in pages."""

_COMPONENT = re.compile(COMPONENT_PATTERN)
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Member = TypeVar("_Member", bound=enum.StrEnum)


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters that a request gives. Every method raises ``HttpError`` 422 for a value that means nothing."""

    values: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """Return a parameter as it stands; nothing has an empty name."""
        text = self.values.get(name)
        if text == "":
            raise invalid(name, "it is empty; give a value, or leave the parameter out")
        return text

    def component(self, name: str) -> str | None:
        """Return a parameter that is a component's name (L4)."""
        text = self.values.get(name)
        if text is not None and not _COMPONENT.fullmatch(text):
            raise invalid(name, f"{text!r:.80} is not a component; expected a name like service, in lower case")
        return text

    def version(self, name: str) -> str | None:
        """Return a parameter that is a version (L5)."""
        text = self.values.get(name)
        try:
            return None if text is None else Version(text).text
        except VersionInvalid as error:
            raise invalid(name, error.message) from None

    def uuid(self, name: str) -> str | None:
        """Return a parameter that is a UUID, as it is usually written."""
        text = self.values.get(name)
        try:
            return None if text is None else str(uuid.UUID(text))
        except ValueError:
            raise invalid(name, f"{text!r:.80} is not a UUID") from None

    def limit(self, default: int = PAGE) -> int:
        """Return how many entries a page may have."""
        text = self.values.get("limit", str(default))
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

    def instant(self, name: str) -> datetime | None:
        """Return a parameter that is a time with its zone (RFC 3339)."""
        text = self.values.get(name)
        try:
            return None if text is None else msgspec.convert(text, _Instant)
        except msgspec.ValidationError:
            raise invalid(name, f"{text!r:.80} is not a time like 2026-11-21T18:00:00Z") from None

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
    for name, value in _pairs(call.scope["query_string"]):
        if name not in known:
            expected = f"expected one of {', '.join(sorted(known))}" if known else "expected none"
            raise invalid(name, f"there is no such parameter; {expected}")
        if name in values:
            raise invalid(name, "it stands there twice")
        if "\0" in value:
            # PostgreSQL has no text with it, and nothing has such a name.
            raise invalid(name, "it has a NUL character")
        values[name] = value
    return Query(values)


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        message = "the query is not UTF-8; expected name=value pairs with percent-encoded UTF-8"
        raise HttpError(422, "invalid_parameter", message) from None


def invalid(name: str, why: str) -> HttpError:
    """Return the 422 for a parameter."""
    return HttpError(422, "invalid_parameter", f"{name!r:.80}: {why}")
