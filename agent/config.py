"""``updater.conf``: the agent's configuration, and what overrides it (FR-CFG-001, FR-CFG-002, FR-CFG-004)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repo_server.core.model import Channel

ENVIRONMENT_PREFIX = "COMMANDIT_"
DEFAULT_SERVER = "https://updates.commandit.com"
BASELINE = ("service", "ui", "probe")


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
    service_manager: str | None = None
    """``process``, ``systemd``, ``launchd``, ``windows-service``; ``None``: what the package says."""
    components: tuple[str, ...] = BASELINE
    """What this device should have; those that are not installed are asked for with version ""."""
    insecure_http: bool = False
    """Allow http:// to hosts other than loopback. For tests of a network, never for a fleet."""


def load_config(path: Path, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """Read the file, then let ``COMMANDIT_<KEY>`` and then ``flags`` (key → value) override it.

    Flags with the value ``None`` are not given. Raises ``ConfigInvalid``: CONFIG_INVALID for what is malformed or
    missing, CONFIG_UNSAFE for a file that others can write, or read while it holds a secret (FR-CFG-004).
    """
    raise NotImplementedError


def write_config(path: Path, changes: Mapping[str, Any]) -> Config:
    """Change some keys of the file, keep all others, also unknown ones; create it with mode 0600 (FR-BST-003).

    A change to ``None`` removes the key. Raises ``ConfigInvalid`` before anything is written, or ``LocalFailure``.
    """
    raise NotImplementedError


def check_protected(path: Path, *, secret: bool) -> None:
    """Refuse a file or folder that others can write, or, with ``secret``, read; say which command mends it."""
    raise NotImplementedError
