"""Certificates are renewed without a restart (NFR-SEC-001)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from support.certificates import make_certificate
from support.server import RunningServer, running, wait_until
from support.trees import Tree


@contextlib.contextmanager
def connected(server: RunningServer, name: str | None = "localhost") -> Iterator[ssl.SSLSocket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname=name) as wrapped,
    ):
        yield wrapped


def serial(server: RunningServer, name: str | None = "localhost") -> int:
    """Return the serial number of the certificate that a new handshake gets."""
    with connected(server, name) as connection:
        data = connection.getpeercert(binary_form=True)
    assert data is not None
    return x509.load_der_x509_certificate(data).serial_number


def asked(connection: ssl.SSLSocket, path: str) -> bytes:
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        answer += connection.recv(65536)
    return answer


def test_a_renewed_certificate_is_used_for_new_handshakes_and_a_bad_one_is_not(tree: Tree, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, 1)
    options = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with running(tree.root, tmp_path / "state", *options, ready=False) as server:
        assert [serial(server), serial(server, None)] == [1, 1]
        with connected(server) as before:
            make_certificate(tmp_path, 2)
            wait_until(lambda: serial(server) == 2, "the new one is used", server.log_path)
            assert serial(server, None) == 2, "also without a name"
            assert asked(before, "/healthz").startswith(b"HTTP/1.1 200"), "a connection from before goes on"
        key.write_bytes(b"garbage")
        wait_until(lambda: "not renewed" in server.log, "it is said", server.log_path)
        assert serial(server) == 2
        with connected(server) as connection:
            assert b"certificate_not_renewed" in asked(connection, "/readyz")
        make_certificate(tmp_path, 3)
        wait_until(lambda: serial(server) == 3, "a good pair is used again", server.log_path)
        certificate.unlink()
        wait_until(lambda: server.log.count("not renewed") >= 2, "it is said", server.log_path)
        assert serial(server) == 3


def test_a_certificate_that_ends_soon_is_said(tree: Tree, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, days=3)
    options = ("--tls-cert", str(certificate), "--tls-key", str(key), "--public-metrics")
    with running(tree.root, tmp_path / "state", *options, ready=False) as server:
        with connected(server) as connection:
            assert b"certificate_ends" in asked(connection, "/readyz")
        assert "renew it" in server.log


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_today_are_spoken(tree: Tree, tmp_path: Path, version: ssl.TLSVersion) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = context.minimum_version = version
    with (
        running(
            tree.root, tmp_path / "state", "--tls-cert", str(certificate), "--tls-key", str(key), ready=False
        ) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
        context.wrap_socket(connection) as wrapped,
    ):
        assert wrapped.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]


def tls_options(folder: Path) -> tuple[str, ...]:
    certificate, key = make_certificate(folder)
    return "--tls-cert", str(certificate), "--tls-key", str(key)


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


def descriptors(server: RunningServer) -> int:
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_handshakes_that_do_not_come_take_no_more_places_than_connections(tree: Tree, tmp_path: Path) -> None:
    options = tls_options(tmp_path)
    with running(tree.root, tmp_path / "state", *options, "--max-connections", "20", ready=False) as server:
        with connected(server) as connection:
            assert asked(connection, "/healthz")
        before = descriptors(server)
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            with connected(server) as connection:
                assert asked(connection, "/healthz")
            assert descriptors(server) <= before + 20 + 2


def test_a_client_in_its_handshake_is_answered_by_a_server_that_stops(tree: Tree, tmp_path: Path) -> None:
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tls = context.wrap_bio(received, sent)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    with (
        running(tree.root, tmp_path / "state", *tls_options(tmp_path), ready=False) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
    ):
        connection.sendall(sent.read())
        received.write(connection.recv(65536))
        server.process.terminate()
        wait_until(lambda: refused(server.port), "it takes no more connections", server.log_path)
        time.sleep(0.4)  # a client at the other side of the world
        tls.do_handshake()
        tls.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        connection.sendall(sent.read())
        answer = b""
        while b"200 OK" not in answer:
            data = connection.recv(65536)
            assert data, "it hung up without an answer"
            received.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                answer += tls.read(65536)
        assert server.process.wait(30) == 0
