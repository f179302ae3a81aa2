"""HTTP as the agent needs it: bounded in time and size, and only to the configured hosts (FR-UPD-002, NFR-SEC-001)."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError, SSLError
from urllib3.exceptions import TimeoutError as HttpTimeout
from urllib3.response import BaseHTTPResponse

from agent.codes import Code
from agent.connections import open_pool
from agent.errors import NetworkFailure
from agent.urls import Origin, origin_of
from repo_server.core.wire import SECRET_HEADER

PIECE = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPING_THE_METHOD = frozenset({307, 308})
_MOST_REDIRECTS = 5


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
        self._pools: dict[Origin, HTTPConnectionPool] = {}

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
        try:
            absolute = urljoin(url, target)
        except ValueError:
            absolute = target  # "http://[::1" leads nowhere; no configured host, then
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

    def _pool(self, origin: Origin) -> HTTPConnectionPool:
        if origin not in self._pools:
            pins = self._pins if origin in self._servers else frozenset()
            timeouts = self.timeouts
            timeout = urllib3.Timeout(connect=timeouts.connect, read=timeouts.read)
            self._pools[origin] = open_pool(origin, timeout, timeouts.headers, self._tls, pins)
        return self._pools[origin]


@contextlib.contextmanager
def _wrapped(url: str) -> Iterator[None]:
    """Turn what the HTTP library raises into ``NetworkFailure``."""
    host = urlsplit(url).netloc
    try:
        yield
    except NewConnectionError as error:
        raise NetworkFailure(
            Code.NETWORK, f"cannot connect to {host}: {_reason(error).rpartition('): ')[2]}"
        ) from error
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
