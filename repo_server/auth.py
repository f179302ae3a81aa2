"""Who asks: agents by a shared secret, operators by a token (design §5, NFR-SRV-010)."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from repo_server.statefolder import held
from repo_server.treeio import write_atomic

TOKENS_NAME = "tokens.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_WEAK_SECRET = 16
"""Characters; a shorter secret can be guessed, and is warned of."""
_MAX_FILE = 1024 * 1024

_log = logging.getLogger(__name__)

Keys: TypeAlias = Mapping[str, bytes]
"""Id of a secret or name of a token → SHA-256 of it. The secrets themselves are not kept."""


class CredentialsInvalid(Exception):
    """A secrets or tokens file is malformed; the message never contains a secret."""


class TokenUnknown(Exception):
    """No token has that name."""


class TokenExists(Exception):
    """A token has that name already."""


def digest(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def match(keys: Keys, presented: str) -> str | None:
    """Return whose secret was presented, comparing with every one in constant time."""
    wanted = digest(presented)
    found = None
    for name, known in keys.items():
        if hmac.compare_digest(known, wanted):
            found = name
    return found


def parse_secrets(text: str, where: str) -> Keys:
    """Read ``id:secret`` lines; ``#`` starts a comment line. Raise ``CredentialsInvalid``."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, secret = line.strip().partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise CredentialsInvalid(f"{where} line {number}: expected id:secret, id of letters, digits and . _ @ -")
        if not secret.strip() or not secret.isascii() or not secret.isprintable() or secret != secret.strip():
            raise CredentialsInvalid(
                f"{where} line {number}: the secret of {name!r} must be printable ASCII; make one with: "
                "openssl rand -hex 32"
            )
        if len(secret) < _WEAK_SECRET:
            _log.warning("%s line %d: the secret of %r is short enough to guess", where, number, name)
        if name in keys:
            raise CredentialsInvalid(f"{where} line {number}: {name!r} is there twice; give each secret its own id")
        keys[name] = digest(secret)
    if not keys:
        raise CredentialsInvalid(f"{where} holds no secret; expected at least one line id:secret")
    return MappingProxyType(keys)


class _Token(msgspec.Struct, frozen=True):
    name: str
    sha256: str
    created: datetime


def parse_tokens(data: bytes, where: str) -> Keys:
    """Read a tokens file; raise ``CredentialsInvalid``."""
    return MappingProxyType({token.name: bytes.fromhex(token.sha256) for token in _tokens(data, where)})


@dataclass(slots=True)
class KeyFile:
    """The keys of a file that may change while the server runs. A bad change leaves the last good keys in force."""

    path: Path
    kind: str
    """``secrets`` or ``tokens``."""
    optional: bool = False
    """Whether the file may be missing (then: no keys)."""
    keys: Keys = field(default_factory=lambda: MappingProxyType({}))
    _seen: tuple[int, int, int] | None = None

    def load(self) -> None:
        """Read the file; raise ``CredentialsInvalid`` or ``OSError``."""
        self._seen = self._state()
        if self._seen is None and self.optional:
            self.keys = MappingProxyType({})
            return
        data = self.path.read_bytes()[:_MAX_FILE]
        if self.kind == "tokens":
            self.keys = parse_tokens(data, str(self.path))
            return
        try:
            self.keys = parse_secrets(data.decode(), str(self.path))
        except UnicodeDecodeError as error:
            raise CredentialsInvalid(f"{self.path} is not UTF-8 at byte {error.start}") from None

    def refresh(self) -> None:
        """Read the file again if it changed; what is wrong with it goes to the log."""
        if self._state() == self._seen:
            return
        try:
            self.load()
        except (CredentialsInvalid, OSError) as error:
            _log.error("%s not reloaded, the last good ones stay in force: %s", self.kind, error)
        else:
            _log.info("%s reloaded from %s: %s", self.kind, self.path, ", ".join(self.keys) or "none")

    def _state(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def add_token(state: Path, name: str, now: datetime) -> str:
    """Make an operator's token, keep its hash, and return it; raise ``TokenExists`` or ``CredentialsInvalid``."""
    if not _NAME.fullmatch(name):
        raise CredentialsInvalid(f"token name {name!r}: expected letters, digits and . _ @ -, at most 64")
    with held(state, "tokens.lock", wait=True):
        tokens = list_tokens(state)
        if any(token.name == name for token in tokens):
            raise TokenExists(f"there is a token {name!r} already; revoke it first, or take another name")
        value = f"cit_{secrets.token_urlsafe(32)}"
        _write(state, [*tokens, _Token(name, digest(value).hex(), now)])
    return value


def revoke_token(state: Path, name: str) -> None:
    """Forget a token; raise ``TokenUnknown``."""
    with held(state, "tokens.lock", wait=True):
        tokens = list_tokens(state)
        kept = [token for token in tokens if token.name != name]
        if len(kept) == len(tokens):
            raise TokenUnknown(f"there is no token {name!r}; see: repo-server token list")
        _write(state, kept)


def list_tokens(state: Path) -> list[_Token]:
    """Return the tokens, oldest first; only their hashes are known."""
    path = state / TOKENS_NAME
    return _tokens(path.read_bytes(), str(path)) if path.exists() else []


def _write(state: Path, tokens: list[_Token]) -> None:
    write_atomic(state / TOKENS_NAME, msgspec.json.format(msgspec.json.encode(tokens), indent=2) + b"\n", 0o600)


def _tokens(data: bytes, where: str) -> list[_Token]:
    try:
        tokens = msgspec.json.decode(data, type=list[_Token])
        for token in tokens:
            bytes.fromhex(token.sha256)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CredentialsInvalid(f"{where} is damaged: {error}; remove it and add the tokens again") from None
    return tokens
