"""What the agent tells the server when it asks what to install (FR-UPD-003)."""

from __future__ import annotations

from typing import Any

from agent.endpoint import Endpoint
from agent.fingerprint import ATTRIBUTE, fingerprint
from agent.manifest import Manifest
from agent.postpone import WAITING, in_words, load_waits
from agent.quarantine import ATTEMPTS, load_quarantine
from agent.selfupdate import is_installed
from repo_server.core.model import UPDATER
from repo_server.core.wire import MAX_ATTRIBUTES, CheckRequest, ComponentState, HealthReport


def check_request(endpoint: Endpoint, manifest: Manifest, again: str | None = None) -> CheckRequest:
    """Return the request; ``again`` names a component that is asked for as if it was not there (FR-RIN-001)."""
    config, world = endpoint.config, endpoint.world
    quarantine, _ = load_quarantine(endpoint.paths.state / ATTEMPTS)
    held = "; ".join(f"{failure.component}: {failure.message}" for failure in quarantine.held)
    waits = in_words(load_waits(endpoint.paths.state / WAITING))
    installed = manifest.version_of(UPDATER) if is_installed(endpoint.paths, world.program) else None
    return CheckRequest(
        updater_version=str(installed or world.version),
        os=world.platform.os,
        arch=world.platform.arch,
        release_channel=config.release_channel,
        components=tuple(
            ComponentState(name, "" if name == again else str(manifest.version_of(name) or ""))
            for name in dict.fromkeys((*config.components, *manifest.components))
        ),
        device_id=config.device_id,
        org_id=config.org_id,
        site_id=config.site_id,
        attributes=_attributes(endpoint) or None,
        health=HealthReport("critical", held[:4000]) if held else HealthReport("ok", waits),
    )


def _attributes(endpoint: Endpoint) -> dict[str, Any]:
    device_id, attributes = endpoint.config.device_id, dict(endpoint.config.attributes)
    if device_id is not None and ATTRIBUTE not in attributes and len(attributes) < MAX_ATTRIBUTES:
        mark = fingerprint(device_id, endpoint.identity.says())
        return attributes if mark is None else {**attributes, ATTRIBUTE: mark}
    return attributes
