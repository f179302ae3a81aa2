"""What the resident agent needs of this system: waiting, children, supervision, and the way to ask for a check.

Standard library only: the daemon lives on this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from agent.trigger import SOCKET

if sys.platform == "win32":
    from agent.platform.triggerpipe import TriggerPipe as Trigger
    from agent.platform.unsupervised import Unsupervised as Supervision
    from agent.platform.windows_waiting import Child, Waiting
else:
    from agent.platform.posix_waiting import Child, Waiting
    from agent.platform.triggersocket import TriggerSocket as Trigger

    if sys.platform == "linux":
        from agent.supervision import Supervision
    else:
        from agent.platform.unsupervised import Unsupervised as Supervision

__all__ = ["Child", "Supervision", "Trigger", "Waiting", "trigger_of"]


def trigger_of(run_folder: Path, answer: Callable[[bytes], bytes]) -> Trigger:
    """Return what lets others ask an endpoint's resident agent for a check; it does not listen yet."""
    if sys.platform == "win32":
        return Trigger(run_folder, answer)
    return Trigger(run_folder / SOCKET, {0, os.geteuid()}, answer)
