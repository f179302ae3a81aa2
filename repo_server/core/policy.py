"""What an operator decides for a whole tree: ``repo.toml`` (L30) and ``policy/channels.toml`` (L31)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, TypeVar

import msgspec

from repo_server.core.errors import DeviceIdInvalid, PolicyInvalid, StatementInvalid, VersionInvalid
from repo_server.core.expected import in_words
from repo_server.core.identity import normalise_device_id
from repo_server.core.model import COMPONENT_PATTERN, DEFAULT_COMPONENTS, Channel
from repo_server.core.statement import check_product
from repo_server.core.version import Version

_Value = TypeVar("_Value")
_COMPONENT = re.compile(COMPONENT_PATTERN)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what a scan accepts (L6)."""

    max_file_bytes: int = 8 * 1024**3
    max_sidecar_bytes: int = 64 * 1024
    max_depth: int = 3
    """Folders below the root."""
    max_files: int = 500_000
    """Files of all kinds in one tree."""


@dataclass(frozen=True, slots=True)
class TreeConfig:
    """``repo.toml``."""

    product: str | None = None
    """``None``: what the TUF root says."""
    components: tuple[str, ...] = DEFAULT_COMPONENTS
    default_channel: Channel = Channel.STABLE
    rescan_seconds: int = 60
    stale_days: int = 14
    floors: Mapping[str, Version] = field(default_factory=lambda: MappingProxyType({}))
    """Component → lowest version that is ever offered or installed."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """``policy/channels.toml``: who is on which channel. Ids in lower case."""

    default: Channel | None = None
    """``None``: ``default_channel`` of ``repo.toml``."""
    organisations: Mapping[str, Channel] = field(default_factory=lambda: MappingProxyType({}))
    sites: Mapping[str, Channel] = field(default_factory=lambda: MappingProxyType({}))
    devices: Mapping[str, Channel] = field(default_factory=lambda: MappingProxyType({}))


_Count = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class _LimitsToml(msgspec.Struct, forbid_unknown_fields=True):
    max_file_bytes: _Count = Limits().max_file_bytes
    max_sidecar_bytes: Annotated[int, msgspec.Meta(ge=256, le=16 * 1024**2)] = Limits().max_sidecar_bytes
    max_depth: Annotated[int, msgspec.Meta(ge=0, le=16)] = Limits().max_depth
    max_files: _Count = Limits().max_files


class _RepoToml(msgspec.Struct, forbid_unknown_fields=True):
    product: str | None = None
    components: Annotated[list[str], msgspec.Meta(min_length=1, max_length=256)] = msgspec.field(
        default_factory=lambda: list(DEFAULT_COMPONENTS)
    )
    default_channel: Channel = Channel.STABLE
    rescan_seconds: Annotated[int, msgspec.Meta(ge=1, le=86400)] = 60
    stale_days: Annotated[int, msgspec.Meta(ge=1, le=36500)] = 14
    floors: dict[str, str] = {}
    limits: _LimitsToml = msgspec.field(default_factory=_LimitsToml)


def parse_repo_toml(data: bytes) -> TreeConfig:
    """Read ``repo.toml``; ``components`` adds to the default set. Raise ``PolicyInvalid`` (L30)."""
    where = "repo.toml"
    raw = _toml(data, where, _RepoToml)
    if raw.product is not None:
        try:
            check_product(raw.product)
        except StatementInvalid as error:
            raise _invalid(where, error.message) from None
    components = tuple(dict.fromkeys([*DEFAULT_COMPONENTS, *raw.components]))
    for name in components:
        if not _COMPONENT.fullmatch(name):
            raise _invalid(where, f"component {name!r:.80} is malformed; expected a name like sensor, in lower case")
    floors = {}
    for name, text in raw.floors.items():
        if name not in components:
            raise _invalid(where, f"floors names {name!r:.80}, which is not in components")
        try:
            floors[name] = Version(text)
        except VersionInvalid as error:
            raise _invalid(where, f"floors.{name}: {error.message}") from None
    limits = Limits(raw.limits.max_file_bytes, raw.limits.max_sidecar_bytes, raw.limits.max_depth, raw.limits.max_files)
    return TreeConfig(
        raw.product,
        components,
        raw.default_channel,
        raw.rescan_seconds,
        raw.stale_days,
        MappingProxyType(floors),
        limits,
    )


class _ChannelsToml(msgspec.Struct, forbid_unknown_fields=True):
    default: Channel | None = None
    organisations: dict[str, Channel] = {}
    sites: dict[str, Channel] = {}
    devices: dict[str, Channel] = {}


def parse_channels_toml(data: bytes) -> ChannelPolicy:
    """Read ``policy/channels.toml``; raise ``PolicyInvalid`` (L31)."""
    where = "policy/channels.toml"
    raw = _toml(data, where, _ChannelsToml)
    return ChannelPolicy(
        raw.default,
        _by_id(raw.organisations, f"{where}: organisations", _lower),
        _by_id(raw.sites, f"{where}: sites", _lower),
        _by_id(raw.devices, f"{where}: devices", normalise_device_id),
    )


def _lower(text: str) -> str:
    return text.strip().lower()


def _by_id(table: dict[str, Channel], where: str, normal: Callable[[str], str]) -> Mapping[str, Channel]:
    try:
        found = {normal(key): channel for key, channel in table.items()}
    except DeviceIdInvalid as error:
        raise _invalid(where, error.message) from None
    if len(found) != len(table):
        raise _invalid(where, "two of the ids are one id written in two ways; keep one")
    return MappingProxyType(found)


def _toml(data: bytes, where: str, kind: type[_Value]) -> _Value:
    try:
        return msgspec.convert(tomllib.loads(data.decode()), kind)
    except UnicodeDecodeError as error:
        raise _invalid(where, f"is not UTF-8 at byte {error.start}") from None
    # ValueError is also what tomllib lets through for a number of more than 4,300 digits.
    except (ValueError, RecursionError) as error:
        raise _invalid(where, in_words(error, kind)) from None


def _invalid(where: str, why: str) -> PolicyInvalid:
    return PolicyInvalid("invalid_policy", f"{where}: {why}")
