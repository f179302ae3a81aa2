"""First installation: from an empty machine and a ``root.json`` to a configured endpoint (FR-BST-002, FR-BST-003)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.codes import Code
from agent.config import Config, load_config, write_config
from agent.durable import replace_file
from agent.errors import AgentError, ConfigInvalid, TrustRefused, local_failure
from agent.paths import Paths
from agent.trust import load_root, parse_root


@dataclass(frozen=True, slots=True)
class Provision:
    """What an operator says at installation; ``None`` leaves what the configuration has."""

    root_file: Path | None = None
    secret_file: Path | None = None
    settings: Mapping[str, Any] | None = None
    """Keys of ``updater.conf``; values ``None`` are not given."""
    built_in_root: bytes | None = None
    """The root of trust that this agent was built with: for a machine that has none, when no other is given."""


def provision(paths: Paths, given: Provision, new_device_id: str) -> Config:
    """Write or update configuration and root of trust, keep what is there otherwise; the lock must be held.

    Raises ``ConfigInvalid``, ``TrustRefused`` for an older root than the pinned one, ``LocalFailure``. Idempotent.
    """
    root = None if given.root_file is None else _read(given.root_file)
    if root is None and not paths.root_json.exists():
        root = given.built_in_root
    changes = {key: value for key, value in (given.settings or {}).items() if value is not None}
    if given.secret_file is not None:
        changes["auth_secret"] = _read(given.secret_file).decode(errors="replace").strip()
    if root is not None:
        _check_root(paths, root)
    elif not paths.root_json.exists():
        raise ConfigInvalid(
            Code.ROOT_INVALID, f"{paths.root_json} does not exist; give the root of trust with --root root.json"
        )
    if "device_id" not in changes and not _has_device_id(paths):
        changes["device_id"] = new_device_id
    if "components" not in changes and paths.config.exists() and not load_config(paths.config, {}, {}).components:
        # Everything was uninstalled; installing again means the usual set.
        changes["components"] = None
    # The root first: a configured agent without one could do nothing but complain.
    if root is not None:
        replace_file(paths.root_json, root)
    return write_config(paths.config, changes)


def _check_root(paths: Paths, data: bytes) -> None:
    new = parse_root(data)
    if not paths.root_json.exists():
        return
    try:
        pinned = load_root(paths.root_json)
    except AgentError:
        # It is unusable, and being replaced by one that was just given by hand.
        return
    if pinned.keys.product == new.keys.product and new.version < pinned.version:
        raise TrustRefused(
            Code.DOWNGRADE_REFUSED,
            f"the given root has version {new.version}, {paths.root_json} has {pinned.version}; "
            "an older root could bring back a revoked key. Remove the file first if that is meant",
        )


def _has_device_id(paths: Paths) -> bool:
    return paths.config.exists() and load_config(paths.config, {}, {}).device_id is not None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise local_failure(error, f"read {path}") from error
