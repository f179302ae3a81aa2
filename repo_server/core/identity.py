"""Device ids: one device has one id, however it is written (L53)."""

from __future__ import annotations

import re
import uuid

from repo_server.core.errors import DeviceIdInvalid

_PREFIX = re.compile(r"(?:win|mac|macos|lin|linux)-", re.IGNORECASE | re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_CANONICAL = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_PLACEHOLDERS = frozenset({str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1))})


def normalise_device_id(text: str) -> str:
    """Return the id as a lower-case UUID without prefix; raise ``DeviceIdInvalid`` (L53)."""
    if _CANONICAL.fullmatch(text) and text not in _PLACEHOLDERS:
        # As nearly every device writes it, in every check: not worth taking apart.
        return text
    bare = _PREFIX.sub("", text.strip(), count=1)
    if not _UUID.fullmatch(bare):
        raise DeviceIdInvalid(
            "invalid_device_id", f"device_id {text!r:.80} is not a UUID (a prefix such as win- is accepted)"
        )
    value = str(uuid.UUID(bare))
    if value in _PLACEHOLDERS:
        raise DeviceIdInvalid("invalid_device_id", f"device_id {text!r} is a placeholder that many machines share")
    return value
