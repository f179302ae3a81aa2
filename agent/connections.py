"""Connections for ``agent.http``: TLS 1.2 and up, pinned keys, bounded headers (NFR-SEC-001, NFR-SEC-005)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from agent.urls import Origin


def open_pool(
    origin: Origin, timeout: urllib3.Timeout, header_seconds: float, tls: ssl.SSLContext | None, pins: frozenset[str]
) -> HTTPConnectionPool:
    """Return the connections to an origin; ``pins`` are base64 SHA-256 digests of its public keys, none: any."""
    if origin.scheme == "http":
        return _PlainPool(origin.host, origin.port, timeout=timeout, header_seconds=header_seconds)
    return _TlsPool(
        origin.host,
        origin.port,
        timeout=timeout,
        header_seconds=header_seconds,
        ssl_context=tls or _default_tls(),
        pins=pins,
    )


def _default_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _PlainConnection(HTTPConnection):
    """Bounds the time for the headers: a server that drips them would otherwise never run into a read timeout."""

    def __init__(self, *args: Any, header_seconds: float, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._header_seconds = header_seconds

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3 itself
        with _cut_after(self.sock, self._header_seconds):
            return super().getresponse()


class _TlsConnection(HTTPSConnection):
    """The same over TLS, and with the server's public key pinned where the configuration says so (NFR-SEC-005)."""

    def __init__(self, *args: Any, header_seconds: float, pins: frozenset[str], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._header_seconds = header_seconds
        self._pins = pins

    def connect(self) -> None:
        super().connect()
        if self._pins and isinstance(self.sock, ssl.SSLSocket):
            found = _spki(self.sock.getpeercert(binary_form=True))
            if found not in self._pins:
                self.close()
                raise ssl.SSLError(f"the server's public key is {found}, which is not in pinned_spki")

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3 itself
        with _cut_after(self.sock, self._header_seconds):
            return super().getresponse()


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _spki(certificate: bytes | None) -> str:
    if not certificate:
        return "unknown"
    # Late, because few configurations pin a key and every cycle pays for its imports.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode()


@contextlib.contextmanager
def _cut_after(connection: socket.socket | None, seconds: float) -> Iterator[None]:
    """Shut a connection down when the time is over, so that whoever waits on it sees its end."""
    if connection is None:
        yield
        return
    cut = threading.Event()
    late = f"no complete headers within {seconds:g} seconds"

    def shut() -> None:
        cut.set()
        with contextlib.suppress(OSError):  # it is closed already
            # The plain socket's: that of TLS is not made to be called from another thread.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException, HTTPError) as error:
        if cut.is_set():
            raise TimeoutError(late) from error
        raise
    finally:
        timer.cancel()
    if cut.is_set():
        # Headers that are cut off count as complete for the library.
        raise TimeoutError(late)
