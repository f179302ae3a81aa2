"""``package.toml``: what a package says of itself and how it is installed (L40 to L43)."""

from __future__ import annotations

import enum
import re
import tomllib
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from repo_server.core.errors import PackageInvalid, SidecarInvalid, VersionInvalid
from repo_server.core.expected import COMPONENT, URL, in_words
from repo_server.core.model import Arch, Os, Platform, ReleaseId, Requirement
from repo_server.core.sidecars import parse_requirements
from repo_server.core.version import Version

MANIFEST_NAME = "package.toml"
"""The archive's first entry (L40)."""

MAX_MANIFEST_BYTES = 256 * 1024
SESSION_COMPONENT = "ui"
"""The component that belongs to a user session if its package does not say otherwise."""


class ServiceKind(enum.StrEnum):
    """Who runs the component's program (L42)."""

    PROCESS = "process"
    SYSTEMD = "systemd"
    LAUNCHD = "launchd"
    WINDOWS_SERVICE = "windows-service"
    NONE = "none"


class HealthKind(enum.StrEnum):
    """How the agent finds out whether the component works (L43, FR-CMP-005)."""

    PROCESS = "process"
    COMMAND = "command"
    HTTP = "http"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Service:
    """What is started and stopped. ``command`` begins with a path inside the install folder, or a bare name (L43)."""

    kind: ServiceKind = ServiceKind.NONE
    name: str | None = None
    command: tuple[str, ...] = ()
    stop_timeout_seconds: float = 30.0
    session: bool = False
    """Whether it belongs to a user session, so that an update waits until nobody works with it (FR-CMP-007)."""


@dataclass(frozen=True, slots=True)
class Health:
    """The check after a start: it must pass within ``timeout_seconds`` and hold for ``probation_seconds``."""

    kind: HealthKind = HealthKind.PROCESS
    command: tuple[str, ...] = ()
    url: str | None = None
    port: int | None = None
    timeout_seconds: float = 30.0
    probation_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Hooks:
    """Programs of the package, run from the staged folder, each within ``timeout_seconds``."""

    pre_install: tuple[str, ...] = ()
    post_install: tuple[str, ...] = ()
    timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class PackageManifest:
    """A parsed ``package.toml``."""

    id: ReleaseId
    payload: str
    preserve: tuple[str, ...] = ()
    requires: tuple[Requirement, ...] = ()
    modes: tuple[tuple[str, int], ...] = ()
    """Glob → permission bits, for archives that carry none; the last match counts."""
    service: Service = Service()
    health: Health = Health()
    hooks: Hooks = Hooks()


_SERVICE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}\Z"
_NOT_EMPTY = r"^[^\x00]+\Z"
_SHAPES = {
    _SERVICE_NAME: "a name of at most 128 letters, digits and _ . @ -, the first of them a letter or digit",
    _NOT_EMPTY: "text without NUL characters that is not empty",
}
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
_PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
_Argument = Annotated[str, msgspec.Meta(pattern=_NOT_EMPTY, max_length=4096)]
"""No system starts a program with a NUL in its words."""
_Command = Annotated[list[_Argument], msgspec.Meta(max_length=256)]


_WHOLE_PATH = re.compile(r"/|[A-Za-z]:\\")


class _RequirementToml(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    min_version: str


class _ServiceToml(msgspec.Struct, forbid_unknown_fields=True):
    kind: ServiceKind = ServiceKind.NONE
    name: Annotated[str, msgspec.Meta(pattern=_SERVICE_NAME)] | None = None
    command: _Command = []
    stop_timeout_seconds: _Seconds = 30.0
    session: bool | None = None


class _HealthToml(msgspec.Struct, forbid_unknown_fields=True):
    kind: HealthKind = HealthKind.PROCESS
    command: _Command = []
    url: Annotated[str, msgspec.Meta(pattern=URL, max_length=2048)] | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    timeout_seconds: _PositiveSeconds = 30.0
    probation_seconds: _Seconds = 0.0


class _HooksToml(msgspec.Struct, forbid_unknown_fields=True):
    pre_install: _Command = []
    post_install: _Command = []
    timeout_seconds: _PositiveSeconds = 60.0


class _PackageToml(msgspec.Struct, forbid_unknown_fields=True):
    component: Annotated[str, msgspec.Meta(pattern=COMPONENT)]
    version: str
    os: Os
    arch: Arch
    payload: str = "files"
    preserve: Annotated[list[str], msgspec.Meta(max_length=256)] = []
    requires: Annotated[list[_RequirementToml], msgspec.Meta(max_length=64)] = []
    modes: Annotated[dict[str, str], msgspec.Meta(max_length=256)] = {}
    service: _ServiceToml = msgspec.field(default_factory=_ServiceToml)
    health: _HealthToml = msgspec.field(default_factory=_HealthToml)
    hooks: _HooksToml = msgspec.field(default_factory=_HooksToml)


def parse_package_toml(data: bytes, *, admitted: bool = False) -> PackageManifest:
    """Read a ``package.toml``; raise ``PackageInvalid`` (L40 to L44).

    ``admitted``: by an earlier version, perhaps with fewer rules. What it installed has to be stopped and checked, so
    where its programs and URLs lead is not judged again.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise _invalid(f"is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        raw = msgspec.convert(tomllib.loads(data.decode()), _PackageToml)
        version = Version(raw.version)
        requires = parse_requirements([(item.name, item.min_version) for item in raw.requires], MANIFEST_NAME)
    except UnicodeDecodeError as error:
        raise _invalid(f"is not UTF-8 at byte {error.start}") from None
    except (VersionInvalid, SidecarInvalid) as error:
        raise _invalid(error.message) from None
    # ValueError is also what tomllib lets through for a number of more than 4,300 digits.
    except (ValueError, RecursionError) as error:
        raise _invalid(in_words(error, _PackageToml, _SHAPES)) from None
    package = PackageManifest(
        id=ReleaseId(raw.component, version, Platform(raw.os, raw.arch)),
        payload=_relative(raw.payload, "payload"),
        preserve=tuple(_relative(glob, "preserve") for glob in raw.preserve),
        requires=requires,
        modes=tuple((_relative(glob, "modes"), _mode(text)) for glob, text in raw.modes.items()),
        service=_service(raw),
        health=_health(raw.health),
        hooks=Hooks(tuple(raw.hooks.pre_install), tuple(raw.hooks.post_install), raw.hooks.timeout_seconds),
    )
    if not admitted:
        _check_reach(package)
    return package


def _service(package: _PackageToml) -> Service:
    raw = package.service
    if raw.kind is ServiceKind.PROCESS and not raw.command:
        raise _invalid('service.kind = "process" needs service.command')
    if raw.kind not in {ServiceKind.PROCESS, ServiceKind.NONE} and not raw.name:
        raise _invalid(f'service.kind = "{raw.kind}" needs service.name')
    session = package.component == SESSION_COMPONENT if raw.session is None else raw.session
    return Service(raw.kind, raw.name, tuple(raw.command), raw.stop_timeout_seconds, session)


def _health(raw: _HealthToml) -> Health:
    needs: dict[HealthKind, tuple[str, Any]] = {
        HealthKind.COMMAND: ("command", raw.command),
        HealthKind.HTTP: ("url", raw.url),
        HealthKind.TCP: ("port", raw.port),
    }
    if raw.kind in needs and not needs[raw.kind][1]:
        raise _invalid(f'health.kind = "{raw.kind}" needs health.{needs[raw.kind][0]}')
    return Health(raw.kind, tuple(raw.command), raw.url, raw.port, raw.timeout_seconds, raw.probation_seconds)


def _check_reach(package: PackageManifest) -> None:
    """Refuse what leads out of the package, or could never be asked: now, not when a program was stopped for it."""
    _check_own(package.service.command, "service.command")
    for command, where in (
        (package.health.command, "health.command"),
        (package.hooks.pre_install, "hooks.pre_install"),
        (package.hooks.post_install, "hooks.post_install"),
    ):
        _check_endpoints(command, where)
    if package.health.url is not None:
        _check_url(package.health.url)


def _check_own(command: tuple[str, ...], where: str) -> None:
    """Refuse a program that neither the package brings, nor the system finds by its bare name (L43)."""
    if command:
        _relative(command[0], where)


def _check_endpoints(command: tuple[str, ...], where: str) -> None:
    """Let a program also be one of the endpoint's own, by its whole path (L43, L44)."""
    if not (command and _WHOLE_PATH.match(command[0])):
        _check_own(command, where)
    elif ".." in re.split(r"[/\\]", command[0]):
        raise _invalid(f"{where}: {command[0]!r:.120} is not a whole path without ..")


def _check_url(text: str) -> None:
    try:
        parts = urlsplit(text)
        askable = text.isascii() and parts.hostname is not None and parts.hostname.encode("idna") and parts.port != 0
    except ValueError:  # a malformed port or address; a label that no name server knows
        askable = False
    if not askable:
        raise _invalid(f"health.url: {text!r:.120} is not a URL like http://127.0.0.1:8080/healthz, in ASCII")


def _relative(path: str, where: str) -> str:
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or ":" in path or any(part in {"", ".", ".."} for part in parts):
        raise _invalid(f"{where}: {path!r:.120} is not a relative path with / and without . or ..")
    return path


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise _invalid(f'modes: {text!r:.20} is not permission bits like "0755" (no setuid, setgid or sticky)')
    return int(text, 8)


def _invalid(why: str) -> PackageInvalid:
    return PackageInvalid("invalid_package", f"{MANIFEST_NAME}: {why}")
