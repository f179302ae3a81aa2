"""What PostgreSQL does not store, taken out of what clients send: NUL characters, and more than a column holds."""

from __future__ import annotations

import msgspec

_NUL_ESCAPE = "\\u0000"


def clean(text: str | None, length: int) -> str | None:
    """Return text without NULs and at most ``length`` characters long."""
    return None if text is None else text.replace("\0", "\ufffd")[:length]


def clean_json(value: object) -> str:
    """Return JSON text without NULs, which jsonb refuses; raise ``RecursionError`` for absurd depths."""
    encoded = msgspec.json.encode(value).decode()
    if _NUL_ESCAPE not in encoded:
        return encoded
    return msgspec.json.encode(_without_nul(msgspec.json.decode(encoded))).decode()


def _without_nul(value: object) -> object:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value
