"""HTTP as the agent needs it: bounded in time and size, and only to the configured hosts (FR-UPD-002, NFR-SEC-001)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, TypeAlias
from urllib.parse import urljoin, urlsplit

import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError, SSLError
from urllib3.exceptions import TimeoutError as HttpTimeout
from urllib3.response import BaseHTTPResponse, HTTPResponse

from agent.codes import Code
from agent.errors import NetworkFailure
from agent.urls import Origin, origin_of
from repo_server.core.wire import SECRET_HEADER

PIECE = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPING_THE_METHOD = frozenset({307, 308})
_MOST_REDIRECTS = 5
_Pool: TypeAlias = HTTPConnectionPool


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    connect: float = 10.0
    read: float = 30.0
    """Between two pieces of an answer."""
    headers: float = 60.0
    """From the end of the request to the end of the answer's headers."""
    exchange: float = 120.0
    """A whole small answer; downloads have their own bounds."""


class Answer:
    """An answer whose body has not been read yet; valid inside ``Transport.send``'s ``with`` block."""

    def __init__(self, response: BaseHTTPResponse, url: str) -> None:
        self._response = response
        self.url = url
        """Where it came from, after redirects."""
        self.complete = False
        """Whether the body was read to its end."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    def header(self, name: str) -> str | None:
        """Return a header, in any case, or ``None``."""
        return self._response.headers.get(name)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives, a piece at most every ``Timeouts.read`` seconds; raise ``NetworkFailure``."""
        with _wrapped(self.url):
            # read1: stream() would wait until a whole piece has come, however slowly.
            while piece := self._response.read1(PIECE, decode_content=False):
                yield piece
        self.complete = True

    def read(self, limit: int, deadline: float, monotonic: Callable[[], float]) -> bytes:
        """Return a body of at most ``limit`` bytes; raise ``NetworkFailure``."""
        body = bytearray()
        for piece in self.pieces():
            body += piece
            if len(body) > limit:
                raise NetworkFailure(
                    Code.BAD_RESPONSE, f"{self.url} answers with more than {limit} bytes", status=self.status
                )
            if monotonic() > deadline:
                raise NetworkFailure(Code.TIMEOUT, f"{self.url} did not finish its answer in time", status=self.status)
        return bytes(body)


class Transport:
    """Sends requests to the configured hosts and no others; the secret goes to the servers only, never to mirrors."""

    def __init__(
        self,
        servers: Sequence[str],
        mirrors: Sequence[str] = (),
        *,
        secret: str | None = None,
        timeouts: Timeouts = Timeouts(),
        pinned_spki: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        user_agent: str = "commandit-updater",
    ) -> None:
        self._servers = frozenset(origin_of(url) for url in servers)
        self._allowed = self._servers | {origin_of(url) for url in mirrors}
        self._secret = secret
        self.timeouts = timeouts
        self._pins = frozenset(pinned_spki)
        self._tls = tls
        self._user_agent = user_agent
        self._pools: dict[Origin, _Pool] = {}

    def reaches(self, url: str) -> bool:
        """Whether a URL is at one of the configured hosts."""
        try:
            return origin_of(url) in self._allowed
        except ValueError:
            return False

    @contextlib.contextmanager
    def send(
        self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[Answer]:
        """Send a request, follow redirects within the configured hosts, and give the answer, whatever its status.

        Raises ``NetworkFailure``: NETWORK, TIMEOUT, TLS, REDIRECT_REFUSED.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send_once(method, url, body, headers or {})
            answer = Answer(response, url)
            try:
                target = response.headers.get("location")
                if response.status not in _REDIRECTS or target is None:
                    yield answer
                    return
                url = self._followed(method, url, response.status, target)
            finally:
                # A connection with the rest of a body in it cannot carry the next request.
                if not answer.complete:
                    response.close()
                response.release_conn()
        raise NetworkFailure(Code.REDIRECT_REFUSED, f"{url} still redirects after {_MOST_REDIRECTS} redirects")

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _send_once(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> BaseHTTPResponse:
        origin, parts = origin_of(url), urlsplit(url)
        if origin not in self._allowed:
            raise RuntimeError(f"{url} is at no configured host; ask `reaches` first")
        # identity: a compressed answer could unpack to any size, and a package has its own digest.
        sent = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **headers}
        if self._secret is not None and origin in self._servers:
            sent[SECRET_HEADER] = self._secret
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        with _wrapped(url):
            return self._pool(origin).urlopen(
                method,
                path,
                body=body,
                headers=sent,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )

    def _followed(self, method: str, url: str, status: int, target: str) -> str:
        absolute = urljoin(url, target)
        if not self.reaches(absolute):
            raise NetworkFailure(
                Code.REDIRECT_REFUSED,
                f"{url} redirects to {absolute!r:.200}, which is no configured host; if this network has a login "
                "page, log in, else add the host to mirrors",
                status=status,
            )
        if method not in {"GET", "HEAD"} and status not in _KEEPING_THE_METHOD:
            raise NetworkFailure(
                Code.REDIRECT_REFUSED,
                f"{url} answers a {method} with the redirect {status} to {absolute!r:.200}; expected 307 or 308, or "
                "set update_server_url to where it leads",
                status=status,
            )
        return absolute

    def _pool(self, origin: Origin) -> _Pool:
        if origin not in self._pools:
            timeout = urllib3.Timeout(connect=self.timeouts.connect, read=self.timeouts.read)
            common: dict[str, Any] = {"timeout": timeout, "header_seconds": self.timeouts.headers}
            if origin.scheme == "http":
                self._pools[origin] = _PlainPool(origin.host, origin.port, **common)
            else:
                pins = self._pins if origin in self._servers else frozenset()
                context = self._tls or _default_tls()
                self._pools[origin] = _TlsPool(origin.host, origin.port, ssl_context=context, pins=pins, **common)
        return self._pools[origin]


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


@contextlib.contextmanager
def _wrapped(url: str) -> Iterator[None]:
    """Turn what the HTTP library raises into ``NetworkFailure``."""
    host = urlsplit(url).netloc
    try:
        yield
    except NewConnectionError as error:
        raise NetworkFailure(Code.NETWORK, f"cannot connect to {host}: {_reason(error)}") from error
    except (ReadTimeoutError, HttpTimeout, TimeoutError) as error:
        raise NetworkFailure(Code.TIMEOUT, f"{host} did not answer in time: {_reason(error)}") from error
    except (SSLError, ssl.SSLError) as error:
        raise NetworkFailure(Code.TLS, f"no trusted connection to {host}: {_reason(error)}") from error
    except (HTTPError, OSError) as error:
        raise NetworkFailure(Code.NETWORK, f"the connection to {host} broke off: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:300]


def describe(status: int) -> str:
    """Return an HTTP status with its name."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
