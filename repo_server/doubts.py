"""Settings that are allowed and hardly meant: a start says them in the log, ``check-config`` as warnings."""

from __future__ import annotations

from collections.abc import Iterator

from repo_server.access.addresses import Network, parse_network
from repo_server.settings import DEFAULT_PROXY_HEADER, Settings, is_loopback

_NARROWEST_DOUBTED = {4: 7, 6: 15}
"""Bits of a network in which nobody has only proxies: wider than a /8, or for IPv6 than a /16."""


def doubts(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each setting that is likely a mistake."""
    yield from _about_proxies(settings)
    if settings.secrets is None and settings.trusted_proxy and not settings.insecure_no_auth:
        yield (
            "--trusted-proxy without --secrets: whoever comes through the proxy is served, operators' requests too; "
            "give --secrets FILE, or say --insecure-no-auth if the proxy checks who asks"
        )
    if settings.insecure_no_auth and settings.secrets is not None:
        yield "--insecure-no-auth has no effect: there are secrets"
    elif settings.insecure_no_auth and not is_loopback(settings.host):
        yield (
            f"--insecure-no-auth: whoever reaches --host {settings.host} is served, operators' requests too; "
            "something in front must check who asks"
        )
    if settings.tls_cert is None and settings.secrets is not None and not settings.trusted_proxy:
        if not is_loopback(settings.host):
            yield (
                f"--host {settings.host} without TLS: secrets and tokens go over the network in the clear; give "
                "--tls-cert and --tls-key, or put a proxy with TLS in front and name it with --trusted-proxy"
            )
    elif settings.tls_cert is not None and (settings.base_url or "").startswith("http://"):
        yield f"--base-url {settings.base_url}: agents would send their secret there in the clear; expected https://…"


def _about_proxies(settings: Settings) -> Iterator[str]:
    for text in settings.trusted_proxy:
        network = parse_network(text)
        if _is_wide(network):
            yield (
                f"--trusted-proxy {text} holds {network.num_addresses:,} addresses, and who comes from one of them can "
                "say to be anybody: limits and the audit would believe it; name the proxies' own addresses"
            )
    if not settings.trusted_proxy and settings.proxy_header != DEFAULT_PROXY_HEADER:
        yield f"--proxy-header {settings.proxy_header} has no effect: no --trusted-proxy is named"


def _is_wide(network: Network) -> bool:
    return network.prefixlen <= _NARROWEST_DOUBTED[network.version]
