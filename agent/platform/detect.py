"""Which platform this machine is, in the words of release names (L4)."""

from __future__ import annotations

import platform

from agent.codes import Code
from agent.errors import AgentError
from repo_server.core.model import Arch, Os, Platform

_SYSTEMS = {"linux": Os.LINUX, "darwin": Os.MACOS, "windows": Os.WINDOWS}
_MACHINES = {"x86_64": Arch.AMD64, "amd64": Arch.AMD64, "aarch64": Arch.ARM64, "arm64": Arch.ARM64}


def this_platform() -> Platform:
    """Return this machine's platform; raise ``AgentError(NOT_SUPPORTED)`` where there are no releases for it."""
    system, machine = platform.system().lower(), platform.machine().lower()
    if system not in _SYSTEMS or machine not in _MACHINES:
        raise AgentError(Code.NOT_SUPPORTED, f"there are no releases for {system} on {machine}")
    return Platform(_SYSTEMS[system], _MACHINES[machine])
