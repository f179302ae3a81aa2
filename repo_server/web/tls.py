"""TLS by certificate files that are taken up again when they are renewed (NFR-SEC-001)."""

from __future__ import annotations

import logging
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from repo_server.statefolder import StateError, require_private
from repo_server.web.listener import TlsUnusable

WARN_DAYS = 14
"""An ending certificate is said so long before."""

_log = logging.getLogger(__name__)

Pem: TypeAlias = tuple[bytes, bytes]
"""Contents of a certificate's and of its key's file."""


@dataclass(slots=True)
class Tls:
    """A certificate chain and its key. New handshakes get the newest good pair; a bad one leaves the old in force."""

    certificate: Path
    key: Path
    clock: Callable[[], datetime]
    error: str | None = None
    """Why the files' present content is not in force."""
    expires: datetime | None = None
    pem: Pem | None = None
    """What is in force."""
    _entry: ssl.SSLContext | None = None
    _current: ssl.SSLContext | None = None
    _seen: tuple[tuple[int, ...] | None, ...] = ()

    def load(self) -> None:
        """Read the files; raise ``TlsUnusable`` or ``StateExposed``."""
        self._seen = self._state()
        try:
            require_private(self.key)
            self._put_in_force(self.certificate, self.key)
        except (OSError, ValueError) as error:
            raise TlsUnusable(f"--tls-cert {self.certificate}, --tls-key {self.key}: {self._why(error)}") from error

    def take_over(self, pem: Pem, private: Path) -> None:
        """Begin with the pair that another process has in force, then with the files' if it is good.

        OpenSSL reads files only; they lie in a folder of their own in ``private`` for that moment. Raise
        ``TlsUnusable``.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="tls-", dir=private) as name:
                certificate, key = Path(name) / "certificate", Path(name) / "key"
                certificate.write_bytes(pem[0])
                key.write_bytes(pem[1])
                self._put_in_force(certificate, key)
        except (OSError, ValueError, ssl.SSLError) as error:
            raise TlsUnusable(f"the certificate in force cannot be taken over: {error}") from error
        self.read_again()
        self.refresh()

    def read_again(self) -> None:
        """Have the next ``refresh`` read the files, whether they look changed or not."""
        self._seen = ()

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
            if self._current is None:
                raise RuntimeError("the certificate has not been loaded")
            self._entry = self._current
            self._entry.sni_callback = self._newest
        return self._entry

    def ending(self) -> str | None:
        """Say so if the certificate ends soon, or has."""
        if self.expires is None or self.expires - self.clock() > timedelta(days=WARN_DAYS):
            return None
        return f"the certificate {self.certificate} ends on {self.expires:%Y-%m-%d %H:%M} UTC; renew it"

    def _put_in_force(self, certificate: Path, key: Path) -> None:
        # Read first: OpenSSL does not say which of the files is missing.
        pem = certificate.read_bytes(), key.read_bytes()
        context = _context(certificate, key)
        expires = x509.load_pem_x509_certificate(pem[0]).not_valid_after_utc
        # One assignment each; a handshake on the event loop takes one or the other.
        self._current, self.expires, self.pem = context, expires, pem

    def _why(self, error: Exception) -> str:
        """Say what OpenSSL means."""
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            return f"{error.filename}: {error.strerror}"
        try:
            leaf = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except ValueError:
            return f"{self.certificate} is no certificate; expected PEM, -----BEGIN CERTIFICATE-----"
        try:
            private = load_pem_private_key(self.key.read_bytes(), None)
        except TypeError:
            return f"{self.key} has a passphrase, which nobody is there to type; expected a key without one"
        except (ValueError, UnsupportedAlgorithm):
            return f"{self.key} is no private key; expected PEM, -----BEGIN PRIVATE KEY-----"
        if private.public_key() != leaf.public_key():
            return f"{self.key} is not the key of the first certificate in {self.certificate}"
        return str(error)

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


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode
