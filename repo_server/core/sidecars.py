"""The sidecars' content: bytes in, values out, and back (L10 to L16)."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec

from repo_server.core.errors import SidecarInvalid, VersionInvalid
from repo_server.core.expected import NO_NUL, URL, in_words
from repo_server.core.instants import has_utc
from repo_server.core.model import (
    COMPONENT_PATTERN,
    Block,
    Channel,
    Halt,
    Meta,
    ReleaseSignature,
    Requirement,
    Rollout,
)
from repo_server.core.version import Version

MAX_BYTES = 64 * 1024
"""Default limit of a sidecar's size (L10)."""

_SHA256_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_COMPONENT = re.compile(COMPONENT_PATTERN)
_Value = TypeVar("_Value")


def parse_sha256(data: bytes, filename: str) -> str:
    """Return the digest that ``sha256sum`` wrote for ``filename``, in lower case (L10)."""
    match = _SHA256_LINE.fullmatch(_one_line(data, ".sha256"))
    if match is None:
        raise _malformed(".sha256", f'expected one line "<64 hex digits>  {filename}"; write it with sha256sum')
    digest, named = match.groups()
    if named != filename:
        raise SidecarInvalid(
            "sha256_other_file",
            f".sha256 names {named!r:.120}, expected {filename!r}; run sha256sum in the file's own folder",
        )
    return digest.lower()


def format_sha256(digest: str, filename: str) -> bytes:
    """Write the line that ``sha256sum`` writes (L10)."""
    return f"{digest}  {filename}\n".encode()


def parse_sig(data: bytes) -> tuple[ReleaseSignature, ...]:
    """Return the signatures of a ``.sig`` in their order (L11)."""
    lines = _text(data, ".sig").removesuffix("\n").split("\n")
    signatures = tuple(_signature_line(number, line) for number, line in enumerate(lines, 1))
    ids = [signature.key_id for signature in signatures]
    if len(set(ids)) != len(ids):
        raise _malformed(".sig", "the same key id stands on two lines; expected one line per key")
    return signatures


def format_sig(signatures: tuple[ReleaseSignature, ...]) -> bytes:
    """Write a ``.sig`` (L11)."""
    return "".join(f"{signature.key_id} {signature.signature}\n" for signature in signatures).encode()


def parse_channel(data: bytes) -> Channel:
    """Return the channel that the one word names (L12)."""
    word = _one_line(data, ".channel")
    try:
        return Channel(word)
    except ValueError:
        raise SidecarInvalid(
            "unknown_channel", f"{word!r:.80} is not a channel; expected one word: stable, beta or alpha"
        ) from None


def format_channel(channel: Channel) -> bytes:
    """Write a ``.channel`` (L12)."""
    return f"{channel}\n".encode()


_Url = Annotated[str, msgspec.Meta(max_length=2048, pattern=URL)]
# No NUL: PostgreSQL cannot hold one.
_Text = Annotated[str, msgspec.Meta(max_length=1024, pattern=NO_NUL)]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _RequirementJson(msgspec.Struct):
    name: str
    min_version: str


class _MetaJson(msgspec.Struct):
    release_notes_url: _Url | None = None
    requires: Annotated[list[_RequirementJson], msgspec.Meta(max_length=64)] = []
    title: _Text | None = None
    published_at: _Instant | None = None


def parse_meta(data: bytes) -> Meta:
    """Return what a ``.meta`` says (L13)."""
    raw = _json(data, ".meta", _MetaJson)
    _check_instant(raw.published_at, ".meta")
    return Meta(
        requires=parse_requirements([(item.name, item.min_version) for item in raw.requires], ".meta"),
        release_notes_url=raw.release_notes_url,
        title=raw.title,
        published_at=raw.published_at,
    )


def parse_requirements(pairs: list[tuple[str, str]], where: str) -> tuple[Requirement, ...]:
    """Check names and versions of requirements; each component at most once (L13)."""
    requirements = []
    for name, min_version in pairs:
        if not _COMPONENT.fullmatch(name):
            raise _malformed(where, f"requires names {name!r:.80}, which is not a component name")
        try:
            requirements.append(Requirement(name, Version(min_version)))
        except VersionInvalid as error:
            raise _malformed(where, f"requires {name}: {error.message}") from None
    if len({item.name for item in requirements}) != len(requirements):
        raise _malformed(where, "requires names a component twice")
    return tuple(requirements)


class _HaltJson(msgspec.Struct):
    failures: _Share = 0.05
    min_devices: Annotated[int, msgspec.Meta(ge=1)] = 20
    silent_after_seconds: Annotated[int, msgspec.Meta(ge=60)] = 7200


class _RolloutJson(msgspec.Struct, rename={"from_share": "from", "to_share": "to"}):
    start: _Instant
    from_share: _Share = 0.0
    to_share: _Share = 1.0
    duration_seconds: Annotated[int, msgspec.Meta(ge=0, le=366 * 86400)] = 0
    paused: bool = False
    seed: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    halt: _HaltJson | None = None
    halted: dict[str, msgspec.Raw] | None = None


def parse_rollout(data: bytes) -> Rollout:
    """Return the ramp that a ``.rollout`` describes (L14)."""
    raw = _json(data, ".rollout", _RolloutJson)
    _check_instant(raw.start, ".rollout")
    if raw.to_share < raw.from_share:
        raise _malformed(".rollout", f"to ({raw.to_share}) is below from ({raw.from_share}); a ramp only grows")
    halt = None
    if raw.halt is not None:
        halt = Halt(raw.halt.failures, raw.halt.min_devices, raw.halt.silent_after_seconds)
    return Rollout(
        start=raw.start,
        from_share=raw.from_share,
        to_share=raw.to_share,
        duration_seconds=raw.duration_seconds,
        paused=raw.paused,
        seed=raw.seed,
        halt=halt,
        halted=raw.halted is not None,
    )


def format_rollout(rollout: Rollout) -> bytes:
    """Write a ``.rollout`` (L14)."""
    halt = None
    if rollout.halt is not None:
        halt = _HaltJson(rollout.halt.failures, rollout.halt.min_devices, rollout.halt.silent_after_seconds)
    raw = _RolloutJson(
        start=rollout.start,
        from_share=rollout.from_share,
        to_share=rollout.to_share,
        duration_seconds=rollout.duration_seconds,
        paused=rollout.paused,
        seed=rollout.seed,
        halt=halt,
        halted={} if rollout.halted else None,
    )
    return _pretty({key: value for key, value in msgspec.to_builtins(raw).items() if value is not None})


class _BlockJson(msgspec.Struct):
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=1024, pattern=NO_NUL)]
    by: _Text | None = None
    at: _Instant | None = None


def parse_blocked(data: bytes) -> Block:
    """Return the recall that a ``.blocked`` records (L15)."""
    raw = _json(data, ".blocked", _BlockJson)
    _check_instant(raw.at, ".blocked")
    return Block(raw.reason, raw.by, raw.at)


def format_blocked(block: Block) -> bytes:
    """Write a ``.blocked`` (L15)."""
    raw = msgspec.to_builtins(_BlockJson(block.reason, block.by, block.at))
    return _pretty({key: value for key, value in raw.items() if value is not None})


def _pretty(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _malformed(where: str, message: str) -> SidecarInvalid:
    return SidecarInvalid(f"malformed_{where.removeprefix('.')}", f"{where}: {message}")


def _text(data: bytes, where: str) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise _malformed(where, "starts with a byte order mark; save it as plain UTF-8 without one")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _malformed(where, f"is not UTF-8 at byte {error.start}; save it as plain UTF-8") from None
    if "\0" in text:
        raise _malformed(where, "contains NUL bytes; write the file again")
    return text


def _one_line(data: bytes, where: str) -> str:
    text = _text(data, where)
    if "\r" in text:
        raise _malformed(where, "has Windows line ends (CRLF); save it with LF")
    line = text.removesuffix("\n")
    if not line or "\n" in line:
        raise _malformed(where, "is empty; expected one line" if not line else "has more than one line; expected one")
    return line


def _signature_line(number: int, line: str) -> ReleaseSignature:
    key_id, _, signature = line.partition(" ")
    expected = f'line {number}: expected "<key id, 64 hex digits> <signature in base64>"'
    if not _KEY_ID.fullmatch(key_id):
        raise _malformed(".sig", expected)
    try:
        decoded = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed(".sig", expected) from None
    if not decoded or base64.b64encode(decoded).decode() != signature:
        raise _malformed(".sig", expected)
    return ReleaseSignature(key_id, signature)


def _json(data: bytes, where: str, kind: type[_Value]) -> _Value:
    if not _text(data, where).strip():
        raise _malformed(where, "is empty; expected a JSON object")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _malformed(where, in_words(error, kind)) from None


def _check_instant(value: datetime | None, where: str) -> None:
    """Refuse what is a time in its own zone only: in UTC it can be neither compared nor written down."""
    if value is not None and not has_utc(value):
        raise _malformed(where, f"{value} is not in the years 1 to 9999 of UTC; write another time")
