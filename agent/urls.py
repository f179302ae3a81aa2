"""URLs of servers and mirrors: which are allowed, and how paths are joined to them (FR-UPD-002, NFR-SEC-001)."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import quote, urlsplit

_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host and port: who answers."""

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> Origin:
    """Return a URL's origin; raise ``ValueError`` for anything but ``http(s)://host…``."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url!r:.200} is not a URL that starts with https:// and a host")
    return Origin(parts.scheme, parts.hostname.lower().rstrip("."), parts.port or _PORTS[parts.scheme])


def base_url(text: str, *, insecure_http: bool = False) -> str:
    """Return a base URL without a final ``/``; raise ``ValueError`` if it is malformed or not secure."""
    origin = origin_of(text)
    parts = urlsplit(text)
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a user name or password; expected auth_secret in updater.conf instead")
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r:.200} has a query or fragment; expected https://host/path")
    if not text.isascii() or any(char <= " " or char == "\x7f" for char in text):
        raise ValueError(f"{text!r:.200} has characters that a URL may not have")
    if origin.scheme == "http" and not insecure_http and not is_loopback(origin.host):
        raise ValueError(f"{text} is not encrypted; expected https:// (http:// is for loopback only)")
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for certain, without asking DNS."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def below(base: str, path: str) -> str:
    """Return the URL of a tree path at a mirror; raise ``ValueError`` for a path that leads out of the tree."""
    parts = path.split("/")
    if any(part in {"", ".", ".."} or "\\" in part or not part.isprintable() for part in parts):
        raise ValueError(f"{path!r:.200} is not a path inside a tree")
    return f"{base}/{quote(path)}"
