"""The server's settings: one type, read from flags, the environment and a TOML file (flag > env > file > default)."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from repo_server.access.addresses import parse_network
from repo_server.access.buckets import Rate
from repo_server.core.expected import in_words

ENVIRONMENT_PREFIX = "REPO_SERVER_"
CONFIG = "config"
"""Names the TOML file; a setting on the command line and in the environment only."""

DEFAULT_PROXY_HEADER: Final = "x-forwarded-for"

_LOCATION = re.compile(r"/(?:[A-Za-z0-9._~-]+/)+")
_BASE_URL = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]+(?:/[A-Za-z0-9._~/\-]*)?")


class SettingsInvalid(Exception):
    """Settings are unknown, malformed or contradict each other; a line each, which names it and where it came from."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Unsafe(Exception):
    """The settings are well-formed but would leave the server open (exit code 3)."""


def _help(text: str, **limits: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, **limits)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that an operator can set (design §11)."""

    tree: Annotated[Path, _help("The downloads tree.")]
    state: Annotated[Path, _help("Folder of the server's own data: digest cache, tokens, PostgreSQL.")]
    host: Annotated[str, _help("Address to listen on.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, _help("Port to listen on; 0 takes a free one.", ge=0, le=65535)] = 8470
    base_url: Annotated[str | None, _help("Start of the URLs in answers; default: the request's Host.")] = None
    package_base_url: Annotated[
        str | None, _help("Start of release files' URLs in answers, followed by their path in the tree: a CDN.")
    ] = None
    x_accel: Annotated[
        str | None, _help("Internal location of an nginx in front that sends release files; see systemd/.")
    ] = None
    database_url: Annotated[str | None, _help("PostgreSQL to use; default: an embedded one in the state folder.")] = (
        None
    )
    no_database: Annotated[bool, _help("Serve agents without recording anything.")] = False
    spool_megabytes: Annotated[int, _help("Reports kept on disk while the database is away.", ge=1)] = 256
    log_retention_months: Annotated[int, _help("Whole months that the logs are kept.", ge=1, le=1200)] = 13
    device_retention_days: Annotated[
        int, _help("Days after which a device that no longer asks is forgotten; 0: never.", ge=0, le=36500)
    ] = 0
    secrets: Annotated[Path | None, _help("File of agents' secrets, one id:secret per line.")] = None
    insecure_no_auth: Annotated[bool, _help("Serve anybody, also beyond this machine.")] = False
    public_tree: Annotated[bool, _help("Serve /tree and /metadata without a secret, as a mirror does.")] = False
    online_key: Annotated[Path | None, _help("Key that signs TUF metadata; makes this server the origin.")] = None
    workers: Annotated[
        int, _help("Processes that answer; from 2 on one more keeps tree and database.", ge=1, le=256)
    ] = 1
    poll: Annotated[bool, _help("Find changes by looking, for network file systems.")] = False
    tls_cert: Annotated[Path | None, _help("Certificate chain (PEM); with --tls-key serves https.")] = None
    tls_key: Annotated[Path | None, _help("Private key of the certificate (PEM).")] = None
    trusted_proxy: Annotated[
        tuple[str, ...], _help("Address or network (CIDR) of a proxy whose word on the client's address counts.")
    ] = ()
    proxy_header: Annotated[
        Literal["x-forwarded-for", "forwarded"], _help("The one header in which trusted proxies say it.")
    ] = DEFAULT_PROXY_HEADER
    limit_address: Annotated[str, _help("Requests of one address, as COUNT/TIME (s, m, h) or off.")] = "50000/250s"
    limit_secret: Annotated[str, _help("Requests with one secret.")] = "200000/10s"  # noqa: S105 -- a rate
    limit_device: Annotated[str, _help("Requests of one device.")] = "60/1m"
    limit_failures: Annotated[str, _help("Requests of one address with wrong credentials.")] = "20/1m"
    redis_url: Annotated[str | None, _help("Redis through which several servers share these limits.")] = None
    max_connections: Annotated[int, _help("Connections; at the limit idle ones make room.", ge=16)] = 20000
    request_seconds: Annotated[int, _help("How long a request may take to arrive.", ge=1, le=3600)] = 30
    audit_log: Annotated[Path | None, _help("File of audit lines; default: audit.log in the state folder.")] = None
    audit_megabytes: Annotated[int, _help("Size at which the audit file is rotated.", ge=1)] = 100
    audit_files: Annotated[int, _help("Older audit files that are kept.", ge=0, le=1000)] = 10
    audit_stdout: Annotated[bool, _help("Audit lines also to standard output.")] = False
    public_metrics: Annotated[bool, _help("Serve /metrics without an operator's token.")] = False
    next_check_seconds: Annotated[int, _help("When agents are told to ask again.", ge=10, le=7 * 86400)] = 14400
    shutdown_seconds: Annotated[int, _help("How long running downloads may finish on SIGTERM.", ge=0, le=86400)] = 10
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _help("Least level that is logged.")] = "info"

    @property
    def scheme(self) -> str:
        """``https`` with a certificate."""
        return "http" if self.tls_cert is None else "https"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting, for whoever builds a command line from them."""

    name: str
    help: str
    flag: bool
    """Whether it is on or off rather than a value."""
    default: object
    repeatable: bool = False
    """Whether it may be given several times; in the environment and in a file with commas between."""


def options() -> tuple[Option, ...]:
    """Describe every setting; the command line is built from this, so that none can be missing there."""
    described = []
    for field, info in zip(msgspec.structs.fields(Settings), msgspec.inspect.type_info(Settings).fields, strict=True):  # type: ignore[attr-defined]  # a struct's type info has fields
        text = field.type.__metadata__[0].description
        default = None if field.required else field.default
        described.append(
            Option(field.name, text, isinstance(info.default, bool), default, isinstance(info.default, tuple))
        )
    return tuple(described)


def read_settings(flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Merge the three sources and check the result; raise ``SettingsInvalid``.

    ``flags`` holds only what was given on the command line, by the settings' names.
    """
    described = options()
    names = {option.name for option in described}
    repeatable = {option.name for option in described if option.repeatable}
    environ = {
        name: environment[f"{ENVIRONMENT_PREFIX}{name.upper()}"]
        for name in sorted({*names, CONFIG})
        if environment.get(f"{ENVIRONMENT_PREFIX}{name.upper()}", "") != ""
    }
    config = flags.get(CONFIG, environ.get(CONFIG))
    origin: dict[str, str] = {}
    merged: dict[str, object] = {}
    for source, values in (
        (str(config), {} if config is None else _read_toml(Path(str(config)), names)),
        ("the environment", environ),
        ("the command line", flags),
    ):
        for name, value in values.items():
            if name != CONFIG:
                merged[name] = value.split(",") if name in repeatable and isinstance(value, str) else value
                origin[name] = source
    return _checked(_converted(merged, origin))


def unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Name the variables with our prefix that set nothing, for a warning (an orchestrator may have put them there)."""
    known = {f"{ENVIRONMENT_PREFIX}{option.name.upper()}" for option in options()} | {f"{ENVIRONMENT_PREFIX}CONFIG"}
    return tuple(sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known))


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_toml(path: Path, names: set[str]) -> dict[str, object]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsInvalid(f"cannot read --config {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(f"{path} is not TOML: {error}") from None
    unknown = sorted(set(values) - names)
    if unknown:
        expected = ", ".join(sorted(names))
        raise SettingsInvalid(*(f"{path}: unknown key {name!r}; expected one of {expected}" for name in unknown))
    # Relative paths in a file mean the file's own folder, wherever the server is started from.
    folders = {"tree", "state", "secrets", "online_key", "tls_cert", "tls_key", "audit_log"}
    return {
        name: str(path.parent / value) if name in folders and isinstance(value, str) else value
        for name, value in values.items()
    }


def _converted(merged: Mapping[str, object], origin: Mapping[str, str]) -> Settings:
    problems = [
        f"--{name} is missing; give it, or {ENVIRONMENT_PREFIX}{name.upper()}"
        for name in ("tree", "state")
        if name not in merged
    ]
    # One by one, so that all mistakes are named at once.
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        if field.name not in merged:
            continue
        try:
            values[field.name] = msgspec.convert(merged[field.name], field.type, strict=False, dec_hook=_path)
        except msgspec.ValidationError as error:
            problems.append(f"{_flag(field.name)} from {origin[field.name]}: {in_words(error, field.type)}")
    if problems:
        raise SettingsInvalid(*problems)
    return Settings(**values)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _path(kind: type, value: object) -> object:
    if kind is not Path:
        raise NotImplementedError(f"no conversion to {kind}")
    # msgspec reports a ValueError as a mistake. An empty path would be the folder that one happens to stand in.
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a path, found {value!r}")
    return Path(value).expanduser()


def _checked(settings: Settings) -> Settings:
    problems = tuple(_contradictions(settings))
    if problems:
        raise SettingsInvalid(*problems)
    return settings


def _contradictions(settings: Settings) -> Iterator[str]:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        yield "--tls-cert and --tls-key belong together; one of them is missing"
    if settings.no_database and settings.database_url is not None:
        yield "--no-database and --database-url contradict each other"
    for name, url in (("base-url", settings.base_url), ("package-base-url", settings.package_base_url)):
        if url is not None and not _BASE_URL.fullmatch(url):
            yield f"--{name} {url!r}: expected http(s)://host[:port][/path]"
    if settings.x_accel is not None and not _LOCATION.fullmatch(settings.x_accel):
        yield f"--x-accel {settings.x_accel!r}: expected a location of nginx, like /release-files/"
    if settings.database_url is not None and not settings.database_url.strip():
        yield "--database-url is empty; expected postgresql://user@host/database, or leave it out"
    if settings.redis_url is not None and not _is_redis(settings.redis_url):
        yield "--redis-url: expected redis://host:port, rediss://… or redis+unix:///path"
    for name in ("limit_address", "limit_secret", "limit_device", "limit_failures"):
        yield from _refused(name, Rate.parse, getattr(settings, name))
    for network in settings.trusted_proxy:
        yield from _refused("trusted_proxy", parse_network, network)


def _is_redis(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme == "redis+unix":
        return len(parts.path) > 1
    return parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and port != 0


def _refused(name: str, parse: Callable[[str], object], text: str) -> Iterator[str]:
    try:
        parse(text)
    except ValueError as error:
        yield f"{_flag(name)}: {error}"


def check_exposure(settings: Settings) -> None:
    """Raise ``Unsafe`` if anybody on the network could ask without a secret (NFR-SRV-010)."""
    if settings.secrets is None and not settings.insecure_no_auth and not is_loopback(settings.host):
        raise Unsafe(
            f"--host {settings.host} is reachable from other machines and no secret is configured; "
            "give --secrets FILE (or --insecure-no-auth, if something in front checks who asks)"
        )


def check_places(settings: Settings) -> None:
    """Raise ``Unsafe`` if something private lies in the tree, whose copies are for everybody."""
    tree = settings.tree.resolve()
    for name in ("state", "secrets", "online_key", "tls_key", "audit_log"):
        place: Path | None = getattr(settings, name)
        if place is not None and place.resolve().is_relative_to(tree):
            raise Unsafe(
                f"{_flag(name)} {place} lies in --tree {settings.tree}, which mirrors copy; take another place"
            )
