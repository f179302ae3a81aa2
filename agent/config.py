"""``updater.conf``: the agent's configuration, and what overrides it (FR-CFG-001, FR-CFG-002, FR-CFG-004)."""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agent import durable
from agent.codes import Code
from agent.errors import ConfigInvalid, local_failure
from agent.platform.access import ACCESS
from agent.urls import base_url
from repo_server.core.expected import COMPONENT, in_words
from repo_server.core.identity import normalise_device_id
from repo_server.core.model import Channel
from repo_server.core.package import ServiceKind
from repo_server.core.wire import MAX_ATTRIBUTES, MAX_ID_LENGTH, MAX_NAME_LENGTH

ENVIRONMENT_PREFIX = "COMMANDIT_"
DEFAULT_SERVER = "https://updates.commandit.com"
BASELINE = ("service", "ui", "probe")
MOST_UNKNOWN = 64

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
_Texts = Annotated[list[_Text], msgspec.Meta(max_length=64)]
_WHOLE_PATH = r"^(/|[A-Za-z]:\\)"
_PRINTABLE = r"^[!-~]{1,1024}\Z"
_SHAPES = {
    _WHOLE_PATH: "a whole path, like /var/log/updater.log",
    _PRINTABLE: "1 to 1024 printable ASCII characters without blanks",
}
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
"""What the server takes: a check that it refuses would be refused for ever."""
_Path = Annotated[str, msgspec.Meta(pattern=_WHOLE_PATH)]


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration in force: defaults, then the file, then the environment, then flags."""

    servers: tuple[str, ...] = (DEFAULT_SERVER,)
    """``update_server_url``: one base URL or a list, asked in order; without a final ``/``."""
    mirrors: tuple[str, ...] = ()
    """Base URLs of static copies of the tree."""
    update_check_interval_seconds: int = 14_400
    component_manifest_path: str | None = None
    log_file_path: str | None = None
    log_max_size_mb: int = 10
    log_max_files: int = 5
    root_path: str | None = None
    release_channel: Channel = Channel.STABLE
    auth_secret: str | None = field(default=None, repr=False)
    device_id: str | None = None
    """Normalised (L53)."""
    org_id: str | None = None
    site_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    pinned_spki: tuple[str, ...] = ()
    """Base64 of SHA-256 over a public key (SPKI) that the server's certificate must have (NFR-SEC-005)."""
    service_manager: ServiceKind | None = None
    """``None``: what each package says."""
    components: tuple[str, ...] = BASELINE
    """What this device should have; those that are not installed are asked for with version ""."""
    session_wait_seconds: int = 86_400
    """How long an update waits for no active user session, where its component belongs to one (FR-CMP-007)."""
    insecure_http: bool = False
    """Allow http:// to hosts other than loopback. For tests of a network, never for a fleet."""
    unknown: tuple[str, ...] = ()
    """Keys of the file that mean nothing to this version; they are kept."""


def load_config(path: Path, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """Read the file, then let ``COMMANDIT_<KEY>`` and then ``flags`` (key → value) override it.

    Flags with the value ``None`` are not given. Raises ``ConfigInvalid``: CONFIG_INVALID for what is malformed or
    missing, CONFIG_UNSAFE for a file that others can write, or read while it holds a secret (FR-CFG-004).
    """
    values = _read(path)
    if values is None:
        raise ConfigInvalid(
            Code.CONFIG_INVALID, f"{path} does not exist; run: commandit-updater install --server URL --root root.json"
        )
    origins = dict.fromkeys(values, str(path))
    for key in _KEYS:
        variable = f"{ENVIRONMENT_PREFIX}{key.upper()}"
        if variable in environ:
            values[key], origins[key] = _from_text(key, environ[variable], variable), f"the variable {variable}"
    for key, value in flags.items():
        if value is not None:
            values[key], origins[key] = value, "the command line"
    return _config(values, origins)


def as_environment(environ: Mapping[str, str], flags: Mapping[str, Any]) -> dict[str, str]:
    """Return what overrides the file, as variables for another agent that reads the same file."""
    found = {name: environ[name] for key in _KEYS if (name := f"{ENVIRONMENT_PREFIX}{key.upper()}") in environ}
    for key, value in flags.items():
        if value is not None:
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            found[f"{ENVIRONMENT_PREFIX}{key.upper()}"] = text
    return found


def write_config(path: Path, changes: Mapping[str, Any]) -> Config:
    """Change some keys of the file, keep all others, also unknown ones; create it with mode 0600 (FR-BST-003).

    A change to ``None`` removes the key. Raises ``ConfigInvalid`` before anything is written, or ``LocalFailure``.
    """
    values = _read(path) or {}
    for key, value in changes.items():
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
    config = _config(values, dict.fromkeys(values, str(path)))
    durable.replace_file(path, json.dumps(values, indent=2).encode() + b"\n")
    return config


def check_protected(path: Path, *, secret: bool) -> None:
    """Refuse a file or folder that others can write, or, with ``secret``, read; say which command mends it.

    Raises ``ConfigInvalid`` (CONFIG_UNSAFE), ``LocalFailure``.
    """
    try:
        flaw = ACCESS.flaw(path, secret=secret)
    except OSError as error:
        raise local_failure(error, f"look at {path}") from error
    if flaw is not None:
        raise ConfigInvalid(Code.CONFIG_UNSAFE, f"{flaw.found}, so it cannot be trusted. Run: {flaw.command}")


def read_regular(path: Path, most: int = -1) -> bytes:
    """Return a file's first ``most`` bytes (all); a FIFO, which would be waited for, is an ``OSError`` as any other."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb") as file:
        return file.read(most)


class _Values(msgspec.Struct, forbid_unknown_fields=False):
    """The keys of the file and their types; the defaults are those of ``Config``."""

    update_server_url: _Text | Annotated[list[_Text], msgspec.Meta(min_length=1, max_length=16)] = DEFAULT_SERVER
    mirrors: _Texts = []
    update_check_interval_seconds: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 14_400
    component_manifest_path: _Path | None = None
    log_file_path: _Path | None = None
    log_max_size_mb: Annotated[int, msgspec.Meta(ge=1, le=10_240)] = 10
    log_max_files: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    root_path: _Path | None = None
    release_channel: Channel = Channel.STABLE
    auth_secret: Annotated[str, msgspec.Meta(pattern=_PRINTABLE)] | None = None
    device_id: _Text | None = None
    org_id: _Id | None = None
    site_id: _Id | None = None
    attributes: Annotated[dict[_Name, Any], msgspec.Meta(max_length=MAX_ATTRIBUTES)] = {}
    pinned_spki: _Texts = []
    service_manager: ServiceKind | None = None
    components: Annotated[list[Annotated[str, msgspec.Meta(pattern=COMPONENT)]], msgspec.Meta(max_length=64)] = (
        msgspec.field(default_factory=lambda: list(BASELINE))
    )
    session_wait_seconds: Annotated[int, msgspec.Meta(ge=0, le=30 * 86_400)] = 86_400
    insecure_http: bool = False


_KEYS = tuple(_Values.__struct_fields__)
_NUMBERS = frozenset({"update_check_interval_seconds", "log_max_size_mb", "log_max_files", "session_wait_seconds"})
_LISTS = frozenset({"update_server_url", "mirrors", "pinned_spki", "components"})
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = read_regular(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise local_failure(error, f"read {path}") from error
    check_protected(path.parent, secret=False)
    # Before a word of it is believed: others may have written it.
    check_protected(path, secret=False)
    try:
        values = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise _invalid(f"{path} is not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise _invalid(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise _invalid(f"{path} is not a JSON object")
    if values.get("auth_secret"):
        check_protected(path, secret=True)
    return values


def _from_text(key: str, text: str, variable: str) -> Any:
    try:
        if key in _NUMBERS:
            return int(text)
        if key in _LISTS:
            return [item.strip() for item in text.split(",") if item.strip()]
        if key == "attributes":
            return json.loads(text)
        if key == "insecure_http":
            return _BOOLEANS[text.strip().lower()]
    except (ValueError, KeyError, RecursionError):
        raise _invalid(f"{variable}: {text!r:.80} is not a value for {key}") from None
    return text


def _config(values: Mapping[str, Any], origins: Mapping[str, str]) -> Config:
    key = ""
    try:
        for key in (name for name in _KEYS if name in values):
            msgspec.convert({key: values[key]}, _Values)
        raw = msgspec.convert(values, _Values)
        servers = [raw.update_server_url] if isinstance(raw.update_server_url, str) else raw.update_server_url
        key = "update_server_url"
        server_urls = tuple(base_url(url, insecure_http=raw.insecure_http) for url in servers)
        key = "mirrors"
        mirrors = tuple(base_url(url, insecure_http=raw.insecure_http) for url in raw.mirrors)
        key = "pinned_spki"
        pins = tuple(_pin(pin) for pin in raw.pinned_spki)
        key = "device_id"
        device_id = None if raw.device_id is None else normalise_device_id(raw.device_id)
    except ValueError as error:
        reason = in_words(error, _Values, _SHAPES).removeprefix(f"{key}: ")
        raise _invalid(f"{key} in {origins.get(key, 'the defaults')} is not valid: {reason}") from None
    return Config(
        servers=server_urls,
        mirrors=mirrors,
        update_check_interval_seconds=raw.update_check_interval_seconds,
        component_manifest_path=raw.component_manifest_path,
        log_file_path=raw.log_file_path,
        log_max_size_mb=raw.log_max_size_mb,
        log_max_files=raw.log_max_files,
        root_path=raw.root_path,
        release_channel=raw.release_channel,
        auth_secret=raw.auth_secret,
        device_id=device_id,
        org_id=raw.org_id,
        site_id=raw.site_id,
        attributes=raw.attributes,
        pinned_spki=pins,
        service_manager=raw.service_manager,
        components=tuple(dict.fromkeys(raw.components)),
        session_wait_seconds=raw.session_wait_seconds,
        insecure_http=raw.insecure_http,
        unknown=tuple(sorted(key for key in values if key not in _KEYS))[:MOST_UNKNOWN],
    )


def _pin(text: str) -> str:
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError(f"{text!r:.80} is not the base64 of a SHA-256 digest")
    return text


def _invalid(message: str) -> ConfigInvalid:
    return ConfigInvalid(Code.CONFIG_INVALID, message)
