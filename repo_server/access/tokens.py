"""Operators' tokens: made once, shown once, kept as hashes (design §5).

A token is 256 random bits, so nobody can guess it from its hash: one SHA-256 is enough. Salt and a slow hash protect
what people choose themselves, and would cost a tenth of a second for each request here.

::

    TokenError
    ├── TokenExists     a token has that name already
    └── TokenUnknown    no token has that name
"""

from __future__ import annotations

import secrets
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import msgspec

from repo_server.access.auth import NAME, CredentialsInvalid, Keys, Role, digest
from repo_server.core.expected import in_words
from repo_server.statefolder import held, prepare
from repo_server.tree.treeio import write_atomic

TOKENS_NAME = "tokens.json"
_DIGEST_BYTES = 32


class TokenError(Exception):
    """What was asked for is not possible with the tokens there are."""


class TokenUnknown(TokenError):
    """No token has that name."""


class TokenExists(TokenError):
    """A token has that name already."""


class Token(msgspec.Struct, frozen=True):
    """What is kept of a token."""

    name: str
    sha256: str
    created: datetime
    role: Role = Role.READ


def parse_tokens(data: bytes, where: str) -> Keys:
    """Read a tokens file; raise ``CredentialsInvalid``."""
    tokens = _tokens(data, where)
    return Keys(
        MappingProxyType({token.name: bytes.fromhex(token.sha256) for token in tokens}),
        MappingProxyType({token.name: token.role for token in tokens}),
    )


def add_token(state: Path, name: str, role: Role, now: datetime) -> str:
    """Make an operator's token, keep its hash, and return it; the state folder is made if it is missing.

    Raise ``TokenExists``, ``CredentialsInvalid``, ``StateError`` or ``OSError``.
    """
    if not NAME.fullmatch(name):
        raise CredentialsInvalid(f"token name {name!r}: expected letters, digits and . _ @ -, at most 64")
    prepare(state)
    with held(state, "tokens.lock", wait=True):
        tokens = list_tokens(state)
        if any(token.name == name for token in tokens):
            raise TokenExists(f"there is a token {name!r} already; revoke it first, or take another name")
        value = f"cit_{secrets.token_urlsafe(32)}"
        _write(state, [*tokens, Token(name, digest(value).hex(), now, role)])
    return value


def revoke_token(state: Path, name: str) -> None:
    """Forget a token; raise ``TokenUnknown``."""
    with held(state, "tokens.lock", wait=True):
        tokens = list_tokens(state)
        kept = [token for token in tokens if token.name != name]
        if len(kept) == len(tokens):
            raise TokenUnknown(f"there is no token {name!r}; see: repo-server token list")
        _write(state, kept)


def list_tokens(state: Path) -> list[Token]:
    """Return the tokens, oldest first; only their hashes are known."""
    path = state / TOKENS_NAME
    return _tokens(path.read_bytes(), str(path)) if path.exists() else []


def _write(state: Path, tokens: list[Token]) -> None:
    write_atomic(state / TOKENS_NAME, msgspec.json.format(msgspec.json.encode(tokens), indent=2) + b"\n", 0o600)


def _tokens(data: bytes, where: str) -> list[Token]:
    try:
        tokens = msgspec.json.decode(data, type=list[Token])
        whole = all(len(bytes.fromhex(token.sha256)) == _DIGEST_BYTES for token in tokens)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CredentialsInvalid(f"{where} is damaged: {in_words(error)}; remove it and add the tokens again") from None
    if not whole:
        raise CredentialsInvalid(f"{where} is damaged: a hash is too short; remove it and add the tokens again")
    return tokens
