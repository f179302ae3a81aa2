"""TLS by certificate files that are taken up again when they are renewed (NFR-SEC-001)."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from repo_server.statefolder import StateError, require_private
from repo_server.web.listener import TlsUnusable

WARN_DAYS = 14
"""An ending certificate is said so long before."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tls:
    """A certificate chain and its key. New handshakes get the newest good pair; a bad one leaves the old in force."""

    certificate: Path
    key: Path
    clock: Callable[[], datetime]
    error: str | None = None
    """Why the files' present content is not in force."""
    expires: datetime | None = None
    _entry: ssl.SSLContext | None = None
    _current: ssl.SSLContext | None = None
    _seen: tuple[tuple[int, ...] | None, ...] = ()

    def load(self) -> None:
        """Read the files; raise ``TlsUnusable`` or ``StateExposed``."""
        self._seen = self._state()
        try:
            require_private(self.key)
            context, expires = _context(self.certificate, self.key), _expiry(self.certificate)
        except (OSError, ValueError, ssl.SSLError) as error:
            raise TlsUnusable(f"--tls-cert {self.certificate}, --tls-key {self.key}: {error}") from error
        # One assignment each; a handshake on the event loop takes one or the other.
        self._current, self.expires = context, expires

    def refresh(self) -> None:
        """Read the files again if they changed; what is wrong with them goes to the log and to ``error``."""
        if self._state() == self._seen:
            return
        try:
            self.load()
        except (TlsUnusable, StateError) as error:
            self.error = f"the certificate is not renewed, the old one stays in force: {error}"
            _log.error(self.error)
        else:
            self.error = None
            _log.info("certificate renewed; it ends on %s", self.expires)

    def context(self) -> ssl.SSLContext:
        """Return what handshakes begin with; each goes on with the pair that is in force then."""
        if self._entry is None:
            self._entry = _context(self.certificate, self.key)
            self._entry.sni_callback = self._newest
        return self._entry

    def ending(self) -> str | None:
        """Say so if the certificate ends soon, or has."""
        if self.expires is None or self.expires - self.clock() > timedelta(days=WARN_DAYS):
            return None
        return f"the certificate {self.certificate} ends on {self.expires:%Y-%m-%d %H:%M} UTC; renew it"

    def _newest(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Switch a handshake to the newest pair; called for each, also without a name."""
        if self._current is not None:
            connection.context = self._current

    def _state(self) -> tuple[tuple[int, ...] | None, ...]:
        return _identity(self.certificate), _identity(self.key)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # Without a password of ours OpenSSL would ask at the terminal.
    context.load_cert_chain(certificate, key, password="")
    return context


def _expiry(certificate: Path) -> datetime:
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode
