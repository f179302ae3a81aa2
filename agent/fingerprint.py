"""The machine's fingerprint: by it the server notices that a copied disk uses one device id on two machines."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

ATTRIBUTE = "machine"
"""Under this name among the attributes of a check; what ``updater.conf`` says under it goes before."""
_LABEL = "commandit-machine-v1"
_DIGITS = 32


def fingerprint(device_id: str, said: Sequence[str]) -> str | None:
    """Return what tells this machine from a copy of it; ``None`` if the machine says nothing.

    Nothing that was said can be read from it, and under another device id the same machine has another fingerprint:
    the server can tell no more by it than whether one id still is one machine.
    """
    if not said:
        return None
    return hashlib.sha256("\n".join((_LABEL, device_id, *said)).encode()).hexdigest()[:_DIGITS]
