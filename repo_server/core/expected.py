"""What a decoder refuses, in words: where it stands, what was expected, what was found. Pure.

msgspec speaks of Python's types and shows regular expressions; who wrote the data by hand knows neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import msgspec

from repo_server.core.model import COMPONENT_PATTERN

# \Z, not $: Python's $ also matches before a final line feed.
COMPONENT = rf"^{COMPONENT_PATTERN}\Z"
URL = r"^https?://[^\s\x00-\x1f\x7f]+\Z"
NO_NUL = r"^[^\x00]*\Z"

_SHAPES = {
    COMPONENT: "a component's name like service, in lower case",
    URL: "a URL that starts with http:// or https://, without blanks",
    NO_NUL: "text without NUL characters",
}
_TYPES = {
    "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "null": "null",
    "array": "a list", "object": "an object", "datetime": "a time", "uuid": "a UUID",
}  # fmt: skip
_COUNTED = {"str": "characters", "array": "entries", "object": "fields"}
_TIME = "a time with its zone like 2026-11-21T18:00:00Z"
_AT = " - at `"
_IN = "key` in `"
_STEP = re.compile(r"\.?(?P<name>[^.\[\]]+)|\[(?P<index>[^\]]*)\]")
_WORDS = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<found>[^`]+)`")
_LENGTH = re.compile(r"Expected `(?P<wanted>\w+)` of length (?P<way><=|>=) (?P<count>\d+)")
_BOUND = re.compile(r"Expected `(?P<wanted>\w+)` (?P<way><=|>=|<|>) (?P<limit>\S+)")
_SHAPE = re.compile(r"Expected `str` matching regex (?P<regex>.*)", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_CHOICE = re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL)
_WAYS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}


def in_words(error: Exception, kind: Any = None, shapes: dict[str, str] | None = None) -> str:
    """Return what an error of msgspec says as a sentence; what is none of its errors stays as it is.

    ``kind``: the type that was decoded, for the words that it knows. ``shapes``: regular expression → what it means.
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, msgspec.ValidationError):
        return str(error)
    what, place = _apart(str(error))
    where = place.removeprefix(_IN).removeprefix("$").removeprefix(".")
    said = _said(what, where, kind, _SHAPES | (shapes or {}))
    if place.startswith(_IN):
        return f"a name in {where}: {said}"
    return f"{where}: {said}" if where else said


def _apart(text: str) -> tuple[str, str]:
    """Return what is said, and of which place; from the end, for values may have the same words in them."""
    what, at, place = text.rpartition(_AT)
    return (what, place.removesuffix("`")) if at and place.endswith("`") else (text, "")


def _said(what: str, where: str, kind: Any, shapes: dict[str, str]) -> str:
    for pattern, say in _SENTENCES:
        if (found := pattern.fullmatch(what)) is not None:
            return say(found)
    if (found := _SHAPE.fullmatch(what)) is not None:
        known = (words for regex, words in shapes.items() if repr(regex) == found["regex"])
        return f"expected {next(known, 'text that matches ' + found['regex'])}"
    if (found := _CHOICE.fullmatch(what)) is not None:
        choices = ", ".join(_choices(kind, where))
        return f"{found['value']:.80} is not one of {choices}" if choices else what
    if (found := _UNKNOWN.fullmatch(what)) is not None:
        names = ", ".join(_names(kind, where))
        return f"there is no field {found['name']:.80}" + (f"; expected one of {names}" if names else "")
    if "RFC3339" in what or "timezone component" in what:
        return f"expected {_TIME}"
    return "expected a UUID" if what == "Invalid UUID" else what


def _of_type(found: re.Match[str]) -> str:
    wanted = " or ".join(_TYPES.get(name.strip(), name.strip()) for name in found["wanted"].split("|"))
    there = "a fraction" if found["found"] == "float" else _TYPES.get(found["found"], found["found"])
    return f"expected {wanted}, found {there}"


def _of_length(found: re.Match[str]) -> str:
    counted = _COUNTED.get(found["wanted"], "bytes")
    if (found["way"], found["count"]) == (">=", "1"):
        return "it is empty"
    return f"expected {_WAYS[found['way']]} {found['count']} {counted}"


def _of_bound(found: re.Match[str]) -> str:
    limit = found["limit"].removesuffix(".0")
    return f"expected {_TYPES.get(found['wanted'], 'a number')}, {_WAYS[found['way']]} {limit}"


def _of_missing(found: re.Match[str]) -> str:
    return f"the field {found['name']} is missing"


_SENTENCES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_WORDS, _of_type),
    (_LENGTH, _of_length),
    (_BOUND, _of_bound),
    (_MISSING, _of_missing),
)


@lru_cache(maxsize=64)
def _described(kind: Any) -> msgspec.inspect.Type:
    return msgspec.inspect.type_info(kind)


def _choices(kind: Any, where: str) -> Iterator[str]:
    """Yield the words that may stand at a place."""
    for one in _at(kind, where):
        match one:
            case msgspec.inspect.EnumType():
                yield from (str(word.value) for word in one.cls)
            case msgspec.inspect.LiteralType():
                yield from (str(word) for word in one.values)


def _names(kind: Any, where: str) -> Iterator[str]:
    """Yield the fields that an object at a place may have."""
    for one in _at(kind, where):
        if isinstance(one, msgspec.inspect.StructType):
            yield from (item.encode_name for item in one.fields)


def _at(kind: Any, where: str) -> list[msgspec.inspect.Type]:
    """Return the types of what stands at a place."""
    types = [] if kind is None else list(_flat(_described(kind)))
    for step in _STEP.finditer(where):
        types = [inner for one in types for inner in _inside(one, step["name"])]
    return types


def _inside(kind: msgspec.inspect.Type, name: str | None) -> Iterator[msgspec.inspect.Type]:
    """Yield the types of a field, or (no name) of an entry of a list or table."""
    match kind:
        case msgspec.inspect.StructType():
            found = [item.type for item in kind.fields if item.encode_name == name]
        case msgspec.inspect.DictType():
            found = [kind.value_type]
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            found = [kind.item_type]
        case _:
            found = []
    for one in found:
        yield from _flat(one)


def _flat(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    if isinstance(kind, msgspec.inspect.UnionType):
        yield from (inner for one in kind.types for inner in _flat(one))
    elif isinstance(kind, msgspec.inspect.Metadata):
        yield from _flat(kind.type)
    else:
        yield kind
