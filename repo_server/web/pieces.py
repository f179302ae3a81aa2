"""Takes JSON apart that is not quite JSON, so that one broken element does not cost the others. Pure.

Only strings, brackets and commas are looked at, in one pass and without recursion: what the pieces are is for a decoder
to say, one by one. For input that a decoder has refused; it is ten times slower than one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_BLANK = b" \t\n\r"
# One that does not end goes to the end of the text: looking for its end from each of its quotes would take for ever.
_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_TOKEN = re.compile(rb"%b|[\[{]++|[\]}]++|," % _STRING, re.DOTALL)
_MEMBER = re.compile(rb"[ \t\n\r]*(%b)[ \t\n\r]*:" % _STRING, re.DOTALL)
_key = msgspec.json.Decoder(str)


class NotInPieces(ValueError):
    """The text has no such outline: its brackets do not match, or it is something else."""


def elements(text: bytes) -> list[bytes]:
    """Return what stands between the commas of an array; raise ``NotInPieces``."""
    return list(_parts(text, b"[]"))


def members(text: bytes) -> dict[str, bytes]:
    """Return the values of an object by their names, the last of a name; raise ``NotInPieces``."""
    found: dict[str, bytes] = {}
    for part in _parts(text, b"{}"):
        member = _MEMBER.match(part)
        if member is None:
            raise NotInPieces("expected a name and a value")
        try:
            found[_key.decode(member[1])] = part[member.end() :].strip(_BLANK)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotInPieces(f"a name cannot be read: {error}") from None
    return found


def _parts(text: bytes, brackets: bytes) -> Iterator[bytes]:
    text = text.strip(_BLANK)
    if len(text) < len(brackets) or text[:1] + text[-1:] != brackets:
        raise NotInPieces(f"expected {brackets.decode()}")
    depth, start, end = 0, 1, len(text) - 1
    for token in _TOKEN.finditer(text, 1, end):
        match token[0][:1]:
            case b"[" | b"{":
                depth += len(token[0])
            case b"]" | b"}":
                depth -= len(token[0])
            case b"," if depth == 0:
                yield text[start : token.start()].strip(_BLANK)
                start = token.end()
        if depth < 0:
            break
    if depth != 0:
        raise NotInPieces("brackets do not match")
    last = text[start:end].strip(_BLANK)
    if last or start > 1:
        yield last
