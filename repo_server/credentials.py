"""The files that say who may ask and who we are: secrets, tokens, certificate; each may change at any time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from repo_server.access.auth import KeyFile, Keys, parse_secrets
from repo_server.access.tokens import TOKENS_NAME, parse_tokens
from repo_server.settings import Settings
from repo_server.web.tls import Pem, Tls


class LastGood(msgspec.Struct, frozen=True):
    """What is in force of them, for a process that starts while a file is bad."""

    secrets: Keys | None
    tokens: Keys
    pem: Pem | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """Secrets, tokens and certificate of one process."""

    secrets: KeyFile | None
    tokens: KeyFile
    tls: Tls | None

    @classmethod
    def of(cls, settings: Settings, clock: Callable[[], datetime]) -> Credentials:
        """Name the files; nothing is read before ``load`` or ``take_over``."""
        secrets = None if settings.secrets is None else KeyFile(settings.secrets, parse_secrets)
        tokens = KeyFile(settings.state / TOKENS_NAME, parse_tokens, optional=True)
        tls = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            tls = Tls(settings.tls_cert, settings.tls_key, clock)
        return cls(secrets, tokens, tls)

    def load(self) -> None:
        """Read the files; raise ``CredentialsInvalid``, ``StateExposed``, ``TlsUnusable`` or ``OSError``."""
        for file in (self.secrets, self.tokens, self.tls):
            if file is not None:
                file.load()

    def take_over(self, last: LastGood, settings: Settings) -> None:
        """Begin with what another process has in force, and read the files; a bad one is said as when it changes.

        A worker that is replaced while somebody edits the secrets must answer agents. Raise ``TlsUnusable``.
        """
        if self.secrets is not None and last.secrets is not None:
            self.secrets.take_over(last.secrets)
        self.tokens.take_over(last.tokens)
        if self.tls is not None and last.pem is not None:
            self.tls.take_over(last.pem, settings.state)

    def in_force(self) -> LastGood:
        """Return what another process can take over."""
        return LastGood(
            None if self.secrets is None else self.secrets.keys,
            self.tokens.keys,
            None if self.tls is None else self.tls.pem,
        )

    def refresh(self) -> None:
        """Take up files that changed."""
        for file in (self.secrets, self.tokens, self.tls):
            if file is not None:
                file.refresh()

    def read_again(self) -> None:
        """Have the next ``refresh`` read all files, whether they look changed or not."""
        for file in (self.secrets, self.tokens, self.tls):
            if file is not None:
                file.read_again()
