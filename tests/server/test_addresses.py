"""Whose request it is behind proxies: read from the right, as far as trust goes (NFR-SRV-009, NFR-AUD-001)."""

from __future__ import annotations

import pytest

from repo_server.access.addresses import FORWARDED, Proxies, parse_network
from repo_server.access.limits import network_of
from repo_server.web.http import single_headers

PROXIES = Proxies(tuple(parse_network(text) for text in ("10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1")))


def address(peer: str | None, *values: str, proxies: Proxies = PROXIES, name: bytes | None = None) -> str:
    headers = [(name or proxies.header, value.encode("latin-1")) for value in values]
    scope = {"client": None if peer is None else (peer, 1), "headers": headers}
    found = proxies.address(scope)
    assert proxies.address(scope, single_headers(headers)) == found, "the short way must read the same"
    return found


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["1.2.3.4, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, , 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8:2::5]:4711"], "2001:db8:2::5"),
        ("10.0.0.1", ["2001:db8:2::5"], "2001:db8:2::5"),
        ("2001:db8:1::1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["\xff\xfe"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4" * 2000], "10.0.0.1"),
        (None, [], ""),
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxy_counts(
    peer: str | None, values: list[str], expected: str
) -> None:
    """What stands left of it may have been written by anybody."""
    assert address(peer, *values) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=203.0.113.9;proto=https;by=10.0.0.1", "203.0.113.9"),
        ('proto=https; FOR="[2001:db8:2::5]:99"', "2001:db8:2::5"),
        ("for=1.2.3.4, for=203.0.113.9", "203.0.113.9"),
        ("for=203.0.113.9, for=_hidden", "10.0.0.1"),
        ("by=203.0.113.9", "10.0.0.1"),
    ],
)
def test_the_standard_header_is_read_where_it_was_asked_for(value: str, expected: str) -> None:
    forwarded = Proxies(PROXIES.networks, FORWARDED)
    assert address("10.0.0.1", value, proxies=forwarded) == expected


def test_only_one_of_the_two_headers_is_ever_read() -> None:
    """A proxy rewrites the one it knows and passes the other on as the client wrote it."""
    assert address("10.0.0.1", "for=1.2.3.4", name=FORWARDED) == "10.0.0.1"
    forwarded = Proxies(PROXIES.networks, FORWARDED)
    assert address("10.0.0.1", "1.2.3.4", proxies=forwarded, name=b"x-forwarded-for") == "10.0.0.1"


def test_headers_as_long_as_clients_like_do_not_fill_the_memory() -> None:
    proxies = Proxies(PROXIES.networks)
    for number in range(3):
        said = f"{'198.51.100.1, ' * 500}203.0.113.{number}"
        assert address("10.0.0.1", said, proxies=proxies) == f"203.0.113.{number}"
    assert proxies._nearest == {}
    assert address("10.0.0.1", "203.0.113.9", proxies=proxies) == "203.0.113.9"
    assert len(proxies._nearest) == 1


@pytest.mark.parametrize(("peer", "expected"), [("10.0.0.1", "https"), ("198.51.100.7", "http")])
def test_the_scheme_is_taken_from_a_trusted_proxy_only(peer: str, expected: str) -> None:
    headers = [(b"x-forwarded-proto", b"https")]
    assert PROXIES.scheme({"client": (peer, 1), "headers": headers, "scheme": "http"}) == expected
    assert PROXIES.scheme({"client": (peer, 1), "headers": [(b"x-forwarded-proto", b"x")], "scheme": "http"}) == "http"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_network_of_one_customer_is_limited_as_one(given: str, expected: str) -> None:
    assert network_of(given) == expected
