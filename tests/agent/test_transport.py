"""Redirects, connections and TLS: where the secret goes, and whom the client believes (NFR-SEC-005, NFR-SRV-010)."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.agent_http import ScriptedServer, scripted_server
from support.agent_tls import Tls, make_tls
from support.asking import ANSWER, QUICK, answering, asking, dripping_headers, endless, good

from agent.client import MAX_ANSWER_BYTES
from agent.codes import Code
from agent.http import Timeouts


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server(good) as running:
        yield running


def test_a_redirect_within_the_configured_hosts_is_followed_without_the_secret_for_mirrors(
    server: ScriptedServer,
) -> None:
    """NFR-SRV-010: the secret is for the servers only."""
    with scripted_server(good) as mirror:
        server.script = answering(308, b"", location=f"{mirror.url}/moved")
        asking(server.url, mirrors=(mirror.url,)).check()
        (moved,) = mirror.requests
        assert (moved.method, moved.path) == ("POST", "/moved")
        assert moved.body == server.requests[0].body
        assert "x-commandit-updater-secret" not in moved.headers


def test_a_redirect_to_another_server_of_ours_keeps_the_secret(server: ScriptedServer) -> None:
    with scripted_server(good) as other:
        server.script = answering(307, b"", location=f"{other.url}/v1/check")
        asking(server.url, other.url).check()
        assert other.requests[0].headers["x-commandit-updater-secret"] == "s3cret"


def test_a_connection_is_used_again_after_a_whole_answer_and_not_after_half_of_one(server: ScriptedServer) -> None:
    ask = asking(server.url)
    server.script = endless
    ask.failure()
    server.script = good
    ask.check()
    ask.check()


def test_an_answer_of_the_largest_size_is_read(server: ScriptedServer) -> None:
    server.script = answering(200, ANSWER.ljust(MAX_ANSWER_BYTES))
    asking(server.url).check()
    server.script = answering(200, ANSWER.ljust(MAX_ANSWER_BYTES + 1))
    assert asking(server.url).failure().code is Code.BAD_RESPONSE


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Make a certificate for 127.0.0.1, a server that has it and a client that trusts it."""
    return make_tls(tmp_path_factory.mktemp("tls"))


def test_tls_is_used_and_the_pinned_key_must_be_the_servers(tls: Tls) -> None:
    """NFR-SEC-001, NFR-SEC-005; one of several pins is enough, so that keys can be rotated."""
    with scripted_server(good, tls.server) as server:
        asking(server.url, tls=tls.client).check()
        asking(server.url, tls=tls.client, pinned_spki=["x" * 44, tls.pin]).check()
        requests = len(server.requests)
        failure = asking(server.url, tls=tls.client, pinned_spki=["x" * 44], rounds=3).failure()
        assert failure.code is Code.TLS
        assert tls.pin in failure.message
        # The secret was not sent to whoever has the other key.
        assert len(server.requests) == requests


def test_no_redirect_leads_out_of_tls(tls: Tls) -> None:
    """NFR-SEC-001: the same host and port, and the secret would be read on the way."""
    with scripted_server(good, tls.server) as server:
        server.script = answering(307, b"", location=server.url.replace("https:", "http:"))
        assert asking(server.url, tls=tls.client).failure().code is Code.REDIRECT_REFUSED


def test_an_untrusted_certificate_is_refused(tls: Tls) -> None:
    """NFR-SEC-001: with the system's own trust, in which the test's certificate is not."""
    with scripted_server(good, tls.server) as server:
        assert asking(server.url).failure().code is Code.TLS
        assert server.requests == []


def test_a_server_that_drips_headers_over_tls_is_cut_off_as_well(tls: Tls) -> None:
    with scripted_server(dripping_headers, tls.server) as server:
        assert asking(server.url, tls=tls.client, timeouts=QUICK).failure().code is Code.TIMEOUT


def test_a_server_that_accepts_and_never_speaks_tls_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        failure = asking(url, timeouts=Timeouts(connect=0.5)).failure()
    assert failure.code is Code.TIMEOUT
