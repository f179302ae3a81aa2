"""What a new version of the agent shows of itself before it is trusted with a machine (FR-SUP-003). It writes nothing.

It reads all that the agent has to know, and completes a check with the server: connection, secret, answer, decision.
"""

from __future__ import annotations

from agent.client import Client
from agent.codes import Code
from agent.cycle import transport_of
from agent.endpoint import Endpoint
from agent.errors import AgentError
from agent.floor import load_floors
from agent.manifest import Manifest, load_manifest
from agent.plan import make_plan
from agent.quarantine import ATTEMPTS, load_quarantine
from agent.request import check_request
from agent.status import load_status
from agent.trust import Trust, load_root
from agent.units import unit_of_installed
from repo_server.core.model import UPDATER


def selfcheck(endpoint: Endpoint, *, offline: bool) -> str:
    """Check that this agent can do its work here, and return in words what was checked.

    Raises ``AgentError`` with the code of what it cannot do. ``offline``: do not ask the server.
    """
    paths = endpoint.paths
    trust = Trust(load_root(paths.root_json), load_floors(paths.floor))
    manifest = _read_state(endpoint)
    for component in manifest.components.values():
        if component.name != UPDATER:
            unit_of_installed(paths, component, endpoint.config.service_manager)
    if offline:
        return "configuration, root of trust and state are read; the server was not asked"
    _ask(endpoint, manifest)
    return f"configuration, root of trust ({trust.root.keys.product}) and state are read, and the server answers"


def _read_state(endpoint: Endpoint) -> Manifest:
    """Return the manifest, and read the other state files; raise ``AgentError`` for what this version cannot read."""
    paths = endpoint.paths
    manifest, journal = load_manifest(paths.manifest), endpoint.journal.read()
    # What is damaged on the disk is no fault of this version, as long as something usable is left.
    unusable = manifest.damage if not manifest.manifest.components else None
    unusable = unusable or (journal.damage if journal.entry is None else None)
    if unusable is not None:
        raise AgentError(Code.STATE_DAMAGED, unusable)
    load_quarantine(paths.state / ATTEMPTS)
    load_status(paths.status)
    return manifest.manifest


def _ask(endpoint: Endpoint, manifest: Manifest) -> None:
    config, clock = endpoint.config, endpoint.world.clock
    transport = transport_of(config)
    client = Client(transport, config.servers, sleep=clock.sleep, random=endpoint.world.random, now=clock.now)
    request = check_request(endpoint, manifest)
    try:
        response = client.check(request)
    finally:
        transport.close()
    versions = {name: component.version for name, component in manifest.components.items()}
    quarantine, _ = load_quarantine(endpoint.paths.state / ATTEMPTS)
    # Whatever comes out of it: that it comes out is the point.
    make_plan(response.updates, versions, quarantine, {component.name for component in request.components})
