"""Whose request it is when proxies stand in front (NFR-AUD-001, NFR-SRV-009).

A header says what its last writer said and everything that was there before, which anybody may have written. So it is
read from the right, and only as far as proxies go that the operator has named (``--trusted-proxy``).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from starlette.types import Scope

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

X_FORWARDED_FOR = b"x-forwarded-for"
FORWARDED = b"forwarded"
_MAX_REMEMBERED = 8192
_MAX_REMEMBERED_BYTES = 256
"""A longer header is read each time: clients write what they like into it, and it must not fill the memory."""
_PROTO = b"x-forwarded-proto"
_SCHEMES = {b"http": "http", b"https": "https"}
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;\s"]*))\s*(?=;|$)', re.IGNORECASE)
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?|([0-9A-Fa-f:.]+)")


@dataclass(slots=True, eq=False)
class Proxies:
    """The proxies that are believed, and the one header in which they say whose request it is.

    Only one: a proxy rewrites the header that it knows and passes the other on as the client wrote it.
    """

    networks: tuple[Network, ...] = ()
    header: bytes = X_FORWARDED_FOR
    # Addresses come again and again, and comparing them with networks takes longer than all else here.
    _trusted: dict[str, bool] = field(default_factory=dict)
    _nearest: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def address(self, scope: Scope, single: Mapping[bytes, bytes | None] | None = None) -> str:
        """Return the address of the client: the nearest one that is no trusted proxy; "" behind a Unix socket.

        ``single``: the headers as ``http.single_headers`` has them, where they are there already.
        """
        peer = peer_of(scope)
        if not self.networks or not self._trusts(peer):
            return peer
        said = None if single is None else single.get(self.header)
        if said is None:
            said = b",".join([value for name, value in scope["headers"] if name == self.header])
        if not said:
            return peer
        found = self._nearest.get((peer, said))
        if found is None:
            found = self._read(peer, said)
            if len(said) <= _MAX_REMEMBERED_BYTES:
                _remember(self._nearest, (peer, said), found)
        return found

    def scheme(self, scope: Scope, single: Mapping[bytes, bytes | None] | None = None) -> str:
        """Return how the client asked: ``http`` or ``https``."""
        scheme: str = scope["scheme"]
        client = scope["client"]
        if not self.networks or client is None or not self._trusts(client[0]):
            return scheme
        if single is not None and _PROTO not in single:
            return scheme
        for name, value in scope["headers"]:
            if name == _PROTO:
                return _SCHEMES.get(value, scheme)
        return scheme

    def _trusts(self, text: str) -> bool:
        found = self._trusted.get(text)
        if found is None:
            found = _is_within(text, self.networks)
            _remember(self._trusted, text, found)
        return found

    def _read(self, peer: str, said: bytes) -> str:
        nearest = peer
        for part in reversed(said.decode("latin-1").split(",")):
            found = _of_forwarded(part) if self.header == FORWARDED else _of_text(part)
            if found is None:
                # Whoever wrote this is trusted, but what it says is no address; left of it may be anybody's.
                return nearest
            nearest = found
            if not self._trusts(found):
                return nearest
        return nearest


def peer_of(scope: Scope) -> str:
    """Return the address that the connection comes from; "" behind a Unix socket."""
    client = scope["client"]
    return "" if client is None else client[0]


def parse_network(text: str) -> Network:
    """Read a CIDR network or a single address; raise ``ValueError``."""
    return ipaddress.ip_network(text.strip(), strict=False)


def _remember(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if len(cache) >= _MAX_REMEMBERED:
        cache.clear()
    cache[key] = value


def _of_forwarded(part: str) -> str | None:
    found = _FOR.search(part)
    return None if found is None else _of_text(found[1] if found[1] is not None else found[2])


def _of_text(text: str) -> str | None:
    found = _WITH_PORT.fullmatch(text.strip())
    if found is None:
        return None
    try:
        address = ipaddress.ip_address(found[1] or found[2] or found[3])
    except ValueError:
        return None
    return str(_plain(address))


def _is_within(text: str, networks: Sequence[Network]) -> bool:
    try:
        address = _plain(ipaddress.ip_address(text))
    except ValueError:
        return False
    return any(address in network for network in networks)


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an IPv4 address in IPv6's clothes as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
